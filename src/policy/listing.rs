//! Lists the policy in the order of evaluation: the user's rules, the built-in table, all other destinations.

use serde::Serialize;

use super::builtin::{FUNCTIONS, RUN_APP};
use super::decision::Credential;
use super::evaluate::{CompiledRule, Policy};
use super::rule::HeaderMode;

/// An entry of the policy: a pattern and its credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyEntry {
    /// The destinations.
    pub(crate) pattern: String,
    /// Their credential.
    pub(crate) credential: Credential,
    /// The ID token's audience; `HOST` stands for the called host.
    pub(crate) audience: Option<String>,
    /// The access token's scopes, if the rule names any.
    pub(crate) scopes: Vec<String>,
    /// The account, if it is not the instance's default account.
    pub(crate) account: Option<String>,
    /// The identity that obtains the token for that account.
    pub(crate) via: Option<String>,
    /// The header that carries the token, as written in options.
    pub(crate) header: Option<&'static str>,
    /// The token may be sent in cleartext.
    pub(crate) plaintext: bool,
    /// The entry is a row of the built-in table.
    pub(crate) built_in: bool,
    /// A note.
    pub(crate) note: Option<&'static str>,
}

const PLUMBING: &str =
    "OAuth endpoints, public files, API-key services and mTLS hosts under that domain get none";
const UNTAGGED: &str = "without a traffic tag";
const BY_RULE: &str = "a token only by a rule";
const DENIED: &str = "--unmatched deny: 403";

// === impl Policy ===

impl Policy {
    /// Returns every entry. The first that matches a destination decides. `universe` as in [`decide`](Self::decide).
    pub(crate) fn listing(&self, universe: &str) -> Vec<PolicyEntry> {
        let mut entries: Vec<_> = self.rules.iter().map(CompiledRule::entry).collect();
        let metadata = PolicyEntry::built_in("metadata server, loopback", Credential::None);
        entries.push(match self.settings.metadata_denied {
            false => metadata,
            true => metadata.noting("--metadata-access deny: 403 for the metadata server"),
        });
        entries.extend([
            PolicyEntry::built_in(&format!("*.{universe}"), Credential::Access).noting(PLUMBING),
            PolicyEntry::built_in(&format!("*.{RUN_APP}"), Credential::Id)
                .with_audience("https://HOST")
                .noting(UNTAGGED),
            PolicyEntry::built_in(&format!("*.{FUNCTIONS}"), Credential::Id)
                .with_audience("https://HOST/FUNCTION"),
        ]);
        entries.push(match self.settings.unmatched_denied {
            true => PolicyEntry::built_in("everything else", Credential::Deny).noting(DENIED),
            false => PolicyEntry::built_in("everything else", Credential::None).noting(BY_RULE),
        });
        entries
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    fn entry(&self) -> PolicyEntry {
        let options = &self.options;
        // A rule always has a credential.
        let credential = options.credential.unwrap_or(Credential::None);
        let audience = match (&options.audience, credential) {
            (Some(audience), _) => Some(audience.to_string()),
            (None, Credential::Id) if options.jwt => Some("https://HOST/*".to_owned()),
            (None, Credential::Id) => Some("https://HOST".to_owned()),
            (None, _) => None,
        };
        let gets_token = matches!(credential, Credential::Access | Credential::Id);
        PolicyEntry {
            pattern: self.pattern.to_string(),
            credential,
            audience,
            scopes: options.scopes.iter().map(ToString::to_string).collect(),
            account: options.principal().account().map(str::to_owned),
            via: options.principal().chain_clause(),
            header: gets_token.then(|| options.header.unwrap_or(HeaderMode::Auto).as_str()),
            plaintext: options.plaintext,
            built_in: false,
            note: None,
        }
    }
}

// === impl PolicyEntry ===

impl PolicyEntry {
    fn built_in(pattern: &str, credential: Credential) -> Self {
        let gets_token = matches!(credential, Credential::Access | Credential::Id);
        Self {
            pattern: pattern.to_owned(),
            credential,
            audience: None,
            scopes: Vec::new(),
            account: None,
            via: None,
            header: gets_token.then(|| HeaderMode::Auto.as_str()),
            plaintext: false,
            built_in: true,
            note: None,
        }
    }

    fn with_audience(self, audience: &str) -> Self {
        Self {
            audience: Some(audience.to_owned()),
            ..self
        }
    }

    fn noting(self, note: &'static str) -> Self {
        Self {
            note: Some(note),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Pattern, Rule, RuleOptions, Settings};

    fn rule(pattern: &str, options: RuleOptions) -> Rule {
        Rule {
            pattern: Pattern::parse(pattern).unwrap(),
            options,
            name: pattern.into(),
        }
    }

    #[test]
    fn rules_come_before_the_table_in_the_order_of_evaluation() {
        let id = RuleOptions {
            credential: Some(Credential::Id),
            audience: Some("client".to_owned()),
            header: Some(HeaderMode::ProxyAuthorization),
            account: Some("a@p.iam.gserviceaccount.com".to_owned()),
            ..RuleOptions::default()
        };
        let deny = RuleOptions {
            credential: Some(Credential::Deny),
            ..RuleOptions::default()
        };
        let rules = vec![rule("*.example", deny), rule("iap.example/v1", id)];
        let listing = Policy::new(rules, Settings::default()).listing("googleapis.com");
        let patterns: Vec<&str> = listing.iter().map(|entry| &*entry.pattern).collect();
        assert_eq!(
            patterns,
            [
                "iap.example/v1",
                "*.example",
                "metadata server, loopback",
                "*.googleapis.com",
                "*.run.app",
                "*.cloudfunctions.net",
                "everything else",
            ]
        );
        assert_eq!(listing[0].audience.as_deref(), Some("client"));
        assert_eq!(listing[0].header, Some("proxy-authorization"));
        assert_eq!(
            listing[0].account.as_deref(),
            Some("a@p.iam.gserviceaccount.com")
        );
        assert_eq!(listing[1].header, None);
        assert_eq!(listing[6].credential, Credential::None);
    }

    #[test]
    fn denied_destinations_are_listed() {
        let settings = Settings {
            unmatched_denied: true,
            metadata_denied: true,
            ..Settings::default()
        };
        let listing = Policy::new(Vec::new(), settings).listing("example.goog");
        assert!(listing[0].note.unwrap().contains("403"));
        assert_eq!(listing[1].pattern, "*.example.goog");
        assert_eq!(listing[4].credential, Credential::Deny);
    }

    #[test]
    fn the_listing_agrees_with_the_table() {
        let policy = Policy::new(Vec::new(), Settings::default());
        for entry in policy.listing("googleapis.com") {
            let Some(domain) = entry.pattern.strip_prefix("*.") else {
                continue;
            };
            let url = format!("https://x.{domain}/f");
            let destination = crate::destination::Destination::parse(&url).unwrap();
            let decision = policy.decide(&destination, "googleapis.com");
            assert_eq!(decision.credential(), entry.credential, "{url}");
        }
    }
}
