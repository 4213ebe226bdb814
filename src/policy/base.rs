//! The kinds of base credential, and which tokens each can get.

use std::sync::Arc;

use super::audience::HostKind;
use super::decision::{Credential, TokenKey, TokenKind};
use super::principal::Principal;
use super::rule::Rule;
use crate::destination::Host;

/// The limits of a person's ID tokens, with advice.
const USER_ID_TOKENS: &str = "the audience of a person's ID tokens is the OAuth client of the login and cannot be chosen; Cloud Run and functions accept it, other services (such as IAP) do not: impersonate a service account \
     (--impersonate-service-account, or impersonate= on the route or rule)";

/// Like [`USER_ID_TOKENS`], for a login with an OAuth client other than gcloud's.
const OTHER_CLIENT_ID_TOKENS: &str = "the audience of a person's ID tokens is the OAuth client of the login and cannot be chosen; Cloud Run and functions accept gcloud's client only, and this is another: log in with \
     `gcloud auth application-default login`, or impersonate a service account (--impersonate-service-account, or impersonate= on the route or rule)";

/// The OAuth clients of gcloud, whose ID tokens Cloud Run and functions accept.
const GCLOUD_CLIENTS: [&str; 2] = [
    "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com",
    "32555940559.apps.googleusercontent.com",
];

/// The error for an audience that a rule or route chooses for a person's ID token, with advice.
const CHOSEN_AUDIENCE: &str = "the audience of a login's ID tokens is the OAuth client of the login (gcloud's client id) and cannot be chosen: \
     drop audience=, or impersonate a service account (--impersonate-service-account, or impersonate= on the route or rule)";

/// Why a federated principal has no ID tokens, with advice.
pub(crate) const FEDERATED_ID_TOKENS: &str = "a federated principal has no ID tokens of its own: impersonate a service account \
     (service_account_impersonation_url in the file, --impersonate-service-account, or impersonate= on the route or rule)";

/// Like [`FEDERATED_ID_TOKENS`], for a login of a workforce pool, whose file cannot name an account.
pub(crate) const WORKFORCE_ID_TOKENS: &str = "a workforce login has no ID tokens of its own: impersonate a service account \
     (--impersonate-service-account, or impersonate= on the route or rule)";

/// The credential that [`Principal::Attached`] stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum BaseCredential {
    /// A service account. Its ID tokens can have any audience.
    #[default]
    Account,
    /// A federated principal that impersonates no account. It has no ID tokens.
    Federated,
    /// A person's login. The audience of its ID tokens is this OAuth client.
    User {
        /// The client's id.
        client_id: Arc<str>,
    },
    /// The login of a person of a workforce pool. It has no ID tokens.
    Workforce,
}

/// Returns whether this is the OAuth client of gcloud.
pub(crate) fn is_gcloud_client(client_id: &str) -> bool {
    GCLOUD_CLIENTS.contains(&client_id)
}

/// Returns the limits of the ID tokens of a login with this OAuth client, with advice.
pub(crate) fn user_id_tokens(client_id: &str) -> &'static str {
    match is_gcloud_client(client_id) {
        true => USER_ID_TOKENS,
        false => OTHER_CLIENT_ID_TOKENS,
    }
}

// === impl BaseCredential ===

impl BaseCredential {
    /// Sets the audience of a person's ID token for Cloud Run and functions, unless the user has `chosen` one. Returns
    /// whether the token is a person's.
    pub(crate) fn adjust(&self, key: &mut TokenKey, host: &Host, chosen: bool) -> bool {
        let Self::User { client_id } = self else {
            return false;
        };
        match &mut key.kind {
            TokenKind::Id { audience }
                if key.principal == Principal::Attached
                    && HostKind::of(host) != HostKind::Other =>
            {
                if !chosen {
                    *audience = Arc::clone(client_id);
                }
                audience == client_id
            }
            _ => false,
        }
    }

    /// Returns why a token for this host cannot be obtained, or `None` if no reason is known in advance.
    pub(crate) fn unobtainable(&self, key: &TokenKey, host: &Host) -> Option<&'static str> {
        if key.principal != Principal::Attached {
            return None;
        }
        match (self, &key.kind) {
            (Self::Account, _) | (_, TokenKind::Access { .. }) => None,
            (Self::Federated, _) => Some(FEDERATED_ID_TOKENS),
            (Self::Workforce, _) => Some(WORKFORCE_ID_TOKENS),
            (Self::User { client_id }, TokenKind::Id { audience })
                if HostKind::of(host) != HostKind::Other =>
            {
                (audience != client_id).then_some(CHOSEN_AUDIENCE)
            }
            (Self::User { client_id }, _) => Some(user_id_tokens(client_id)),
        }
    }

    /// Like [`unobtainable`](Self::unobtainable), for every host of a rule. `impersonated`: the tokens belong to
    /// another account. A JWT is signed, not issued, and is checked elsewhere.
    pub(crate) fn unobtainable_by_rule(
        &self,
        rule: &Rule,
        impersonated: bool,
    ) -> Option<&'static str> {
        let options = &rule.options;
        let is_id = options.effective_credential() == Some(Credential::Id) && !options.jwt;
        if impersonated || !is_id {
            return None;
        }
        let client_id = match self {
            Self::Account => return None,
            Self::Federated => return Some(FEDERATED_ID_TOKENS),
            Self::Workforce => return Some(WORKFORCE_ID_TOKENS),
            Self::User { client_id } => client_id,
        };
        if !rule.pattern.is_serverless() {
            return Some(user_id_tokens(client_id));
        }
        let chosen = options.audience.as_deref();
        chosen
            .is_some_and(|audience| audience != &**client_id)
            .then_some(CHOSEN_AUDIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Destination;
    use crate::policy::{CredentialGrant, Pattern, Policy, RuleOptions, Settings};

    const CLIENT: &str = "1.apps.googleusercontent.com";

    fn user() -> BaseCredential {
        BaseCredential::User {
            client_id: CLIENT.into(),
        }
    }

    fn key(url: &str, rules: &[(&str, &[(&str, &str)])]) -> TokenKey {
        let rule = |(pattern, options): &(&str, &[(&str, &str)])| {
            let mut all = RuleOptions::default();
            for (name, value) in *options {
                all.set(name, value).unwrap();
            }
            Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options: all,
                name: "rule".into(),
            }
        };
        let settings = Settings {
            base: user(),
            ..Settings::default()
        };
        let policy = Policy::new(rules.iter().map(rule).collect(), settings);
        let destination = Destination::parse(url).unwrap();
        match policy.decide(&destination, "googleapis.com").grant {
            CredentialGrant::Token(key) => key,
            other => panic!("{other:?}"),
        }
    }

    fn unobtainable(base: &BaseCredential, key: &TokenKey, url: &str) -> Option<&'static str> {
        base.unobtainable(key, &Destination::parse(url).unwrap().origin.host)
    }

    #[test]
    fn a_users_id_token_for_cloud_run_and_functions_is_for_the_oauth_client() {
        for url in [
            "https://a-1.us-central1.run.app/x",
            "https://b-1.us-central1.run.app",
            "https://us-central1-p.cloudfunctions.net/f",
        ] {
            let key = key(url, &[]);
            let audience = CLIENT.into();
            assert_eq!(key.kind, TokenKind::Id { audience }, "{url}");
            assert_eq!(unobtainable(&user(), &key, url), None);
        }
    }

    #[test]
    fn a_users_id_token_has_no_chosen_audience() {
        let url = "https://a.run.app";
        for (audience, obtainable) in [
            ("https://x", false),
            (url, false),
            ("2.apps.googleusercontent.com", false),
            (CLIENT, true),
        ] {
            let rules = [("a.run.app", &[("audience", audience)] as &[_])];
            let key = key(url, &rules);
            assert_eq!(key.audience(), Some(audience));
            let why = unobtainable(&user(), &key, url);
            assert_eq!(why.is_none(), obtainable, "{audience}: {why:?}");
        }
    }

    #[test]
    fn a_user_has_no_id_token_for_any_other_host() {
        let rules = [("iap.example", &[("credential", "id")] as &[_])];
        let url = "https://iap.example";
        let derived = key(url, &rules);
        assert!(unobtainable(&user(), &derived, url).is_some());
        assert_eq!(unobtainable(&BaseCredential::Account, &derived, url), None);
        let own = key(url, &[("iap.example", &[("audience", CLIENT)] as &[_])]);
        assert!(unobtainable(&user(), &own, url).is_some());
    }

    #[test]
    fn an_impersonated_account_has_the_same_id_tokens_as_any_account() {
        let options: &[(&str, &str)] = &[("credential", "id"), ("impersonate", "a@p.example")];
        let rules = [("*.run.app", options), ("iap.example", options)];
        for (url, expected) in [
            ("https://a.run.app/", "https://a.run.app"),
            ("https://iap.example/", "https://iap.example"),
        ] {
            let key = key(url, &rules);
            assert_eq!(key.audience(), Some(expected));
            assert_eq!(unobtainable(&user(), &key, url), None);
        }
    }

    #[test]
    fn a_federated_principal_has_access_tokens_only() {
        let federated = BaseCredential::Federated;
        let url = "https://storage.googleapis.com";
        assert_eq!(unobtainable(&federated, &key(url, &[]), url), None);
        for url in ["https://a.run.app", "https://r-p.cloudfunctions.net/f"] {
            let why = unobtainable(&federated, &key(url, &[]), url);
            assert!(why.is_some_and(|why| why.contains("--impersonate-service-account")));
        }
        let options: &[(&str, &str)] = &[("credential", "id"), ("impersonate", "a@p.example")];
        let url = "https://a.run.app";
        let other = key(url, &[("a.run.app", options)]);
        assert_eq!(unobtainable(&federated, &other, url), None);
    }

    #[test]
    fn a_rule_is_checked_by_its_pattern() {
        let judged = |pattern: &str, options: &[(&str, &str)], impersonated: bool| {
            let mut all = RuleOptions::default();
            for (name, value) in options {
                all.set(name, value).unwrap();
            }
            let rule = Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options: all,
                name: "rule".into(),
            };
            user().unobtainable_by_rule(&rule, impersonated).is_none()
        };
        let id = [("credential", "id")];
        for pattern in ["a.run.app", "*.run.app", "*.cloudfunctions.net"] {
            assert!(judged(pattern, &id, false), "{pattern}");
        }
        for pattern in ["iap.example", "*.example", "notrun.app", "*.app"] {
            assert!(!judged(pattern, &id, false), "{pattern}");
            assert!(judged(pattern, &id, true), "{pattern}");
            assert!(judged(pattern, &[("credential", "access")], false));
        }
        let iap = [("audience", "2.apps.googleusercontent.com")];
        assert!(!judged("a.run.app", &iap, false));
        let own = [("audience", CLIENT)];
        assert!(judged("a.run.app", &own, false));
        let other = [("audience", "https://x")];
        assert!(!judged("a.run.app", &other, false));
        assert!(judged("a.run.app", &other, true));
    }
}
