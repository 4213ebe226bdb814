//! Which origins may get a token: the domains of the interception CA, and the tunnels that are intercepted.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use http::uri::PathAndQuery;

use super::builtin::{self, BuiltinRule};
use super::decision::Credential;
use super::evaluate::{CompiledRule, Policy};
use super::strictest::PathView;
use crate::destination::{Destination, Origin};

// === impl Policy ===

impl Policy {
    /// Returns whether any path of this origin may get a token. A `CONNECT` names no path.
    pub(crate) fn may_grant(&self, origin: &Origin, universe: &str) -> bool {
        if self.is_metadata(origin) {
            return false;
        }
        for rule in &self.rules {
            if rule.matches_origin(origin) {
                if rule.grants() {
                    return true;
                }
                // A rule without a path shadows every later rule for the origin.
                if !rule.pattern.has_path() {
                    return false;
                }
            }
        }
        let destination = Destination {
            origin: origin.clone(),
            target: PathAndQuery::from_static("/"),
            userinfo: false,
        };
        match builtin::find(&destination, PathView::written("/"), universe) {
            Some(BuiltinRule::GoogleApi(_) | BuiltinRule::CloudRun | BuiltinRule::Functions) => {
                true
            }
            Some(BuiltinRule::NoToken(_)) | None => false,
        }
    }

    /// Returns the name of the rule that denies a path of this origin, or the whole origin. A tunnel whose content is
    /// not read must then not be opened.
    pub(crate) fn denying_rule(&self, origin: &Origin) -> Option<&Arc<str>> {
        for rule in self.rules.iter().filter(|rule| rule.matches_origin(origin)) {
            if rule.options.credential == Some(Credential::Deny) {
                return Some(&rule.name);
            }
            if !rule.pattern.has_path() {
                return None;
            }
        }
        None
    }

    /// Returns every domain that the table or a rule names, if the domain or a name under it may get a token.
    pub(crate) fn granted_domains(&self, universe: &str) -> BTreeSet<String> {
        let of_rules = self.rules.iter().filter(|rule| rule.grants());
        builtin::granted_domains(universe)
            .map(Cow::into_owned)
            .chain(of_rules.filter_map(|rule| Some(rule.pattern.domain()?.to_owned())))
            .collect()
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    pub(super) fn grants(&self) -> bool {
        matches!(
            self.options.credential,
            Some(Credential::Access | Credential::Id)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Pattern, Rule, RuleOptions, Settings};

    fn policy(rules: &[(&str, Credential)]) -> Policy {
        let rules = rules
            .iter()
            .map(|(pattern, credential)| Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options: RuleOptions {
                    credential: Some(*credential),
                    ..RuleOptions::default()
                },
                name: "rule".into(),
            })
            .collect();
        Policy::new(rules, Settings::default())
    }

    fn may(policy: &Policy, url: &str) -> bool {
        policy.may_grant(&Destination::parse(url).unwrap().origin, "googleapis.com")
    }

    #[test]
    fn the_built_in_table_grants_by_host() {
        let policy = policy(&[]);
        for url in [
            "https://storage.googleapis.com",
            "https://www.googleapis.com",
            "https://a.run.app",
            // Its root gets no token, but its functions do.
            "https://r-p.cloudfunctions.net",
        ] {
            assert!(may(&policy, url), "{url}");
        }
        for url in [
            "https://oauth2.googleapis.com",
            "https://a.run.app:8443",
            "https://example.com",
            "https://metadata.google.internal",
            "https://127.0.0.1",
        ] {
            assert!(!may(&policy, url), "{url}");
        }
    }

    #[test]
    fn a_rule_for_one_path_grants_tokens_to_the_origin() {
        let policy = policy(&[
            ("a.example/v2", Credential::Id),
            ("b.example/v2", Credential::Deny),
            ("*.example", Credential::None),
            ("b.run.app/x", Credential::None),
            ("c.run.app", Credential::None),
            ("c.run.app/x", Credential::Id),
            ("d.run.app", Credential::Deny),
        ]);
        for url in [
            "https://a.example",
            "https://b.run.app",
            "https://c.run.app",
        ] {
            assert!(may(&policy, url), "{url}");
        }
        for url in [
            "https://b.example",
            "https://c.example",
            "https://d.run.app",
        ] {
            assert!(!may(&policy, url), "{url}");
        }
    }

    #[test]
    fn granted_domains_are_those_of_the_table_and_of_rules() {
        let policy = policy(&[
            ("*.internal.example:8443", Credential::Id),
            ("iap.example.com/x", Credential::Id),
            ("none.example", Credential::None),
            ("10.0.0.1", Credential::Id),
        ]);
        let domains: Vec<String> = policy.granted_domains("Example.Goog").into_iter().collect();
        assert_eq!(
            domains,
            [
                "cloudfunctions.net",
                "example.goog",
                "iap.example.com",
                "internal.example",
                "run.app"
            ]
        );
    }
}
