//! Detects rules that match more than the user may expect: hosts of several organisations, or hosts to which the
//! built-in table gives no token.
//!
//! Public suffixes are a heuristic, not the Public Suffix List: a single label, the usual second-level labels of
//! country domains, and the suffixes of some large hosting providers. The result is used only for warnings.

use super::builtin::{self, FUNCTIONS, RUN_APP};
use super::decision::{Credential, CredentialGrant};
use super::evaluate::{Policy, Settings};
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
            if left_out.is_named_by(suffix) {
                continue;
            }
            let is_given = left_out
                .destination(&rule.pattern)
                .is_some_and(|destination| {
                    let decision = policy.decide(&destination, universe);
                    matches!(decision.grant, CredentialGrant::Token(_))
                        && decision.rule == rule.name
                });
            if is_given {
                given.push(left_out.pattern());
            }
        }
        given
    }
}

// === impl ExcludedHost ===

impl builtin::ExcludedHost<'_> {
    /// Returns a URL that matches this row, and the pattern if the pattern matches the host.
    fn destination(&self, pattern: &Pattern) -> Option<Destination> {
        let named = pattern.paths().and_then(|paths| paths.first());
        let path = named.map_or("/", String::as_str);
        let (host, path) = match self.host {
            "*.mtls" => ("storage.mtls", path),
            "www" => ("www", "/oauth2/v4/token"),
            host => (host, path),
        };
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

    /// Returns the pattern of a rule for it.
    fn pattern(&self) -> String {
        self.to_string().trim_end_matches("/*").to_owned()
    }

    fn is_named_by(&self, suffix: &str) -> bool {
        self.host
            .strip_prefix("*.")
            .and_then(|host| suffix.strip_prefix(host)?.strip_prefix('.'))
            .is_some_and(|domain| domain == self.domain)
    }
}

#[cfg(test)]
mod tests {
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
            .map(|row| row.pattern())
            .collect();
        assert_eq!(given, rows);
        assert_eq!(rows.len(), 10);
        let defaults = Policy::new(Vec::new(), Settings::default());
        for row in builtin::left_out("googleapis.com") {
            let destination = row.destination(&rule.pattern).unwrap();
            let decision = defaults.decide(&destination, "googleapis.com");
            assert_eq!(&*decision.rule, format!("built-in {row}"), "{row}");
        }
    }
}
