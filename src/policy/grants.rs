//! Who may get a token at all: what a CA must be for, and which tunnels are worth opening.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::uri::PathAndQuery;

use super::builtin::{self, Row};
use super::decision::Credential;
use super::evaluate::{CompiledRule, Policy};
use super::strictest::PathView;
use crate::destination::{Destination, Origin};

// === impl Policy ===

impl Policy {
    /// Whether some path of this origin may get a token: what a `CONNECT` is for has no path yet.
    pub fn may_grant(&self, origin: &Origin, universe: &str) -> bool {
        if self.is_metadata(origin) {
            return false;
        }
        for rule in &self.rules {
            if rule.names(origin) {
                if rule.grants() {
                    return true;
                }
                // What names every path leaves nothing to those after it.
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
            Some(Row::GoogleApi(_) | Row::CloudRun | Row::Functions) => true,
            Some(Row::NoToken(_)) | None => false,
        }
    }

    /// Whether a rule denies a path of this origin, or all of it.
    pub fn may_deny(&self, origin: &Origin) -> bool {
        for rule in self.rules.iter().filter(|rule| rule.names(origin)) {
            if rule.options.credential == Some(Credential::Deny) {
                return true;
            }
            if !rule.pattern.has_path() {
                return false;
            }
        }
        false
    }

    /// Every domain that gets tokens, itself or below it, as the table or a rule names it.
    pub fn granted_domains(&self, universe: &str) -> BTreeSet<String> {
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
    use crate::policy::{Options, Pattern, Rule, Settings};

    fn policy(rules: &[(&str, Credential)]) -> Policy {
        let rules = rules
            .iter()
            .map(|(pattern, credential)| Rule {
                pattern: Pattern::parse(pattern).unwrap(),
                options: Options {
                    credential: Some(*credential),
                    ..Options::default()
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
    fn the_table_grants_by_host() {
        let policy = policy(&[]);
        for url in [
            "https://storage.googleapis.com",
            "https://www.googleapis.com",
            "https://a.run.app",
            // Its root gets none, its functions do.
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
    fn a_rule_for_some_paths_is_enough() {
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
    fn domains_are_those_of_the_table_and_of_granting_rules() {
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
