//! Detects rules that match more than the user may expect: hosts of several organisations, or hosts to which the
//! built-in table gives no token.
//!
//! Public suffixes are a heuristic, not the Public Suffix List: a single label, the usual second-level labels of
//! country domains, and the suffixes of some large hosting providers. The result is used only for warnings.

use super::builtin::{self, FUNCTIONS, RUN_APP};
use super::decision::{Credential, CredentialGrant};
use super::evaluate::{Policy, Settings};
use super::path;
use super::pattern::Pattern;
use super::rule::{Existing, Rule};
use crate::destination::{Destination, Host, Origin, Scheme};

/// Top-level names that are private by convention or reservation (RFC 6762 appendix G, RFC 6761, ICANN's `internal`).
const PRIVATE: [&str; 9] = [
    "corp",
    "home",
    "internal",
    "intranet",
    "lan",
    "local",
    "localhost",
    "private",
    "test",
];

/// Labels under which a country's registry registers names: `co.uk`, `com.au`, `or.jp`.
const SECOND_LEVEL: [&str; 17] = [
    "ac", "co", "com", "edu", "go", "gob", "gov", "ltd", "me", "mil", "ne", "net", "nom", "or",
    "org", "plc", "sch",
];

/// Suffixes of providers whose customers have names below them.
const HOSTING: [&str; 27] = [
    "a.run.app",
    "amazonaws.com",
    "appspot.com",
    "azurewebsites.net",
    "blogspot.com",
    "cloud.goog",
    "cloudapp.azure.com",
    "cloudflare.net",
    "cloudfront.net",
    FUNCTIONS,
    "firebaseapp.com",
    "fly.dev",
    "gateway.dev",
    "github.io",
    "gitlab.io",
    "googleusercontent.com",
    "herokuapp.com",
    "hosted.app",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    RUN_APP,
    "vercel.app",
    "web.app",
    "workers.dev",
];

/// The kind of suffix below which several organisations have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedSuffix {
    /// A registry's suffix: anyone can register a name below it.
    Registry,
    /// A hosting provider's suffix: its customers have names below it.
    Hosting,
}

// === impl SharedSuffix ===

impl SharedSuffix {
    /// Returns the risk and the advice.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Registry => {
                "anyone can register a name below it and would receive this token; name your own domain"
            }
            Self::Hosting => {
                "customers of a provider have names below it and would receive this token; name your own hosts"
            }
        }
    }
}

// === impl Rule ===

impl Rule {
    /// Returns the kind of suffix if the rule gives a token to names of several organisations.
    ///
    /// `*.run.app=id` is excluded: the built-in table does the same, and each service gets a token for its own
    /// audience.
    pub(crate) fn shared_suffix(&self) -> Option<SharedSuffix> {
        let suffix = self.pattern.suffix().filter(|_| self.grants())?;
        let shared = shared_suffix(suffix)?;
        let own_audience =
            self.options.credential == Some(Credential::Id) && self.options.audience.is_none();
        let as_built_in = own_audience
            && [RUN_APP, FUNCTIONS]
                .iter()
                .any(|domain| suffix == *domain || builtin::is_under(suffix, domain));
        (!as_built_in).then_some(shared)
    }

    /// Returns whether the rule replaces the app's own credential.
    pub(crate) fn replaces(&self) -> bool {
        self.options.existing == Some(Existing::Replace)
    }

    fn grants(&self) -> bool {
        matches!(
            self.options.credential,
            Some(Credential::Access | Credential::Id)
        )
    }
}

fn shared_suffix(suffix: &str) -> Option<SharedSuffix> {
    let mut labels = suffix.rsplit('.');
    let (top, second, third) = (labels.next()?, labels.next(), labels.next());
    let is_country = top.len() == 2;
    match (second, third) {
        (None, _) if PRIVATE.contains(&top) => None,
        (None, _) => Some(SharedSuffix::Registry),
        (Some(second), None) if is_country && SECOND_LEVEL.contains(&second) => {
            Some(SharedSuffix::Registry)
        }
        _ => is_hosting(suffix).then_some(SharedSuffix::Hosting),
    }
}

/// Returns whether the suffix is that of a provider, or of a region or service of the provider.
fn is_hosting(suffix: &str) -> bool {
    HOSTING.iter().any(|hosting| {
        let below = match suffix.strip_suffix(hosting) {
            Some("") => return true,
            Some(below) => below.strip_suffix('.'),
            None => None,
        };
        match (*hosting, below) {
            // One label can only be a region here: names of services have a hyphen and a hash.
            (RUN_APP, Some(below)) => super::service::is_region(below),
            ("appspot.com", Some(below)) => {
                below == "r" || below.ends_with(".r") && below.len() == 4
            }
            ("amazonaws.com", Some(below)) => {
                let first = below.split('.').next().unwrap_or(below);
                first.starts_with("s3")
                    || first.starts_with("elb")
                    || super::service::is_region(first)
            }
            _ => false,
        }
    })
}

// === impl Policy ===

impl Policy {
    /// Returns the hosts to which the built-in table gives no token, but this rule does.
    ///
    /// `rules` are all rules of the user, because a more specific one may exclude a host.
    pub(crate) fn given_beyond_the_table(
        rule: &Rule,
        rules: &[Rule],
        universe: &str,
    ) -> Vec<String> {
        let Some(suffix) = rule.pattern.suffix().filter(|_| rule.grants()) else {
            return Vec::new();
        };
        let policy = Self::new(rules.to_vec(), Settings::default());
        let mut given = Vec::new();
        for left_out in builtin::left_out(universe) {
            // A rule for exactly these hosts is intentional.
            if left_out.has_all_below(suffix) {
                continue;
            }
            let is_given = |form: &String| {
                let destination = left_out.destination(form, &rule.pattern);
                destination.is_some_and(|destination| {
                    let decision = policy.decide(&destination, universe);
                    matches!(decision.grant, CredentialGrant::Token(_))
                        && decision.rule == rule.name
                })
            };
            // The first form stands for the others. A regional endpoint is named only if the rule has no other form.
            let form = left_out.forms().into_iter().find(is_given);
            given.extend(form.map(|form| left_out.pattern(&form, suffix)));
        }
        given
    }
}

// === impl ExcludedHost ===

impl builtin::ExcludedHost<'_> {
    /// Returns a URL that matches this form of the row, and the pattern if the pattern matches such a host.
    fn destination(&self, form: &str, pattern: &Pattern) -> Option<Destination> {
        let named = pattern.paths().and_then(|paths| paths.first());
        let path = match named.map(String::as_str) {
            // Only these paths of the host are in the row.
            named if self.host == "www" => named
                .filter(|path| path::is_below(path, "/oauth2"))
                .unwrap_or("/oauth2/v4/token"),
            named => named.unwrap_or("/"),
        };
        // Names that no other rule has.
        let region = pattern.suffix().and_then(|suffix| self.region(suffix));
        let host = form
            .replace(Self::ANY, "any-host")
            .replace(Self::REGION, region.unwrap_or("any-region1"));
        // Port 80 is upgraded to 443.
        let (scheme, port) = match pattern.port() {
            Some(80) => (Scheme::Http, 80),
            _ => (Scheme::Https, 443),
        };
        Some(Destination {
            origin: Origin {
                scheme,
                host: Host::parse(&format!("{host}.{}", self.domain)).ok()?,
                port,
            },
            target: path.parse().ok()?,
            userinfo: false,
        })
    }

    /// Returns the pattern of a rule for this form of the row, below `suffix`.
    fn pattern(&self, form: &str, suffix: &str) -> String {
        if form == self.host {
            return self.to_string().trim_end_matches("/*").to_owned();
        }
        let region = self.region(suffix).unwrap_or(Self::REGION);
        format!("{}.{}", form.replace(Self::REGION, region), self.domain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::policy::RuleOptions;

    #[test]
    fn a_shared_suffix_is_recognised() {
        for (suffix, expected) in [
            ("com", Some(SharedSuffix::Registry)),
            ("co.uk", Some(SharedSuffix::Registry)),
            ("com.br", Some(SharedSuffix::Registry)),
            ("run.app", Some(SharedSuffix::Hosting)),
            ("a.run.app", Some(SharedSuffix::Hosting)),
            ("us-central1.run.app", Some(SharedSuffix::Hosting)),
            ("uc.r.appspot.com", Some(SharedSuffix::Hosting)),
            ("s3.eu-west-1.amazonaws.com", Some(SharedSuffix::Hosting)),
            ("internal", None),
            ("example.com", None),
            ("example.co.uk", None),
            ("co.com", None),
            ("my-project.appspot.com", None),
            ("bucket.s3.amazonaws.com", None),
            ("endpoints.my-project.cloud.goog", None),
            ("googleapis.com", None),
        ] {
            assert_eq!(shared_suffix(suffix), expected, "{suffix}");
        }
    }

    /// Each row that gives no token is among those that are looked at.
    #[test]
    fn every_row_without_a_token_is_considered() {
        let rule = Rule {
            pattern: Pattern::parse("*.com").unwrap(),
            options: RuleOptions {
                credential: Some(Credential::Access),
                ..RuleOptions::default()
            },
            name: "wide".into(),
        };
        let given =
            Policy::given_beyond_the_table(&rule, std::slice::from_ref(&rule), "googleapis.com");
        let rows: Vec<_> = builtin::left_out("googleapis.com")
            .map(|row| row.pattern(row.host, "com"))
            .collect();
        assert_eq!(given, rows);
        assert_eq!(rows.len(), 10);
        let defaults = Policy::new(Vec::new(), Settings::default());
        for universe in ["googleapis.com", "s3nsapis.fr"] {
            for row in builtin::left_out(universe) {
                for form in row.forms() {
                    let destination = row.destination(&form, &rule.pattern).unwrap();
                    let decision = defaults.decide(&destination, universe);
                    assert_eq!(&*decision.rule, format!("built-in {row}"), "{destination}");
                }
            }
        }
    }

    proptest! {
        /// Compares the warning with the table for any host and any rule that is wider than the host.
        #[test]
        fn no_wide_rule_gives_a_token_that_the_table_does_not_without_a_warning(
            labels in vec(
                select(vec!["sts", "oauth2", "maps", "www", "rep", "us-east1", "mtls", "sandbox", "accounts", "x"]),
                1..5,
            ),
            domain in select(vec!["googleapis.com", "s3nsapis.fr", "google.com"]),
            universe in select(vec!["googleapis.com", "s3nsapis.fr"]),
            wider in 1_usize..6,
            path in select(vec!["/", "/oauth2/x"]),
        ) {
            let host = format!("{}.{domain}", labels.join("."));
            let suffix = host.split('.').skip(wider).collect::<Vec<_>>().join(".");
            prop_assume!(!suffix.is_empty());
            let rule = Rule {
                pattern: Pattern::parse(&format!("*.{suffix}")).unwrap(),
                options: RuleOptions {
                    credential: Some(Credential::Access),
                    ..RuleOptions::default()
                },
                name: "wide".into(),
            };
            let destination = Destination::parse(&format!("https://{host}{path}")).unwrap();
            let defaults = Policy::new(Vec::new(), Settings::default());
            let decision = defaults.decide(&destination, universe);
            let row = builtin::left_out(universe)
                .find(|row| *decision.rule == *format!("built-in {row}"));
            if let Some(row) = row {
                let given =
                    Policy::given_beyond_the_table(&rule, std::slice::from_ref(&rule), universe);
                prop_assert!(!given.is_empty() || row.has_all_below(&suffix), "*.{} and {}", suffix, destination);
            }
        }
    }
}
