//! The built-in table: the credentials of Google's hosts that no user rule matches.

use std::borrow::Cow;
use std::fmt;

use super::path;
use super::strictest::PathView;
use crate::destination::{Destination, Host, Origin, Scheme};

/// The universe domain if no source names another.
pub(crate) const DEFAULT_UNIVERSE: &str = "googleapis.com";
/// The domain of Cloud Run services.
pub(crate) const RUN_APP: &str = "run.app";
/// The domain of Cloud Run functions.
pub(crate) const FUNCTIONS: &str = "cloudfunctions.net";

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BuiltinRule<'a> {
    /// A Google host that must get no token.
    NoToken(ExcludedHost<'a>),
    /// `*.UNIVERSE`: an access token.
    GoogleApi(Cow<'a, str>),
    /// `*.run.app`: an ID token for the service.
    CloudRun,
    /// `*.cloudfunctions.net`: an ID token for the function.
    Functions,
}

/// A host that gets no token, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExcludedHost<'a> {
    pub(super) host: &'static str,
    pub(super) domain: Cow<'a, str>,
    pub(super) why: &'static str,
}

const OAUTH: &str = "it is an OAuth endpoint: clients authenticate in the request itself";
const END_USERS: &str =
    "it is an API for end users; a service account's token would raise their permissions";
const ASSETS: &str = "it serves public files";
const API_KEYS: &str = "it requires API keys";
const CLIENT_CERTIFICATE: &str =
    "mTLS hosts need a client certificate, which the sidecar does not have";

/// The end of the name of a regional endpoint, below the universe domain: `sts.us-central1.rep`.
const REGIONAL: &str = ".rep";

/// The ends of the names of mTLS hosts, below the universe domain.
const MTLS: [&str; 2] = [".mtls", ".mtls.sandbox"];

/// The host of Google's login pages.
const ACCOUNTS: ExcludedHost<'static> = ExcludedHost {
    host: "accounts",
    domain: Cow::Borrowed("google.com"),
    why: OAUTH,
};

/// Hosts without a token, by their first label under the universe domain.
const NO_TOKEN: [(&str, &str); 7] = [
    ("oauth2", OAUTH),
    ("sts", OAUTH),
    ("securetoken", END_USERS),
    ("identitytoolkit", END_USERS),
    ("fonts", ASSETS),
    ("ajax", ASSETS),
    ("maps", API_KEYS),
];

/// Returns the row that matches `destination`.
pub(super) fn find<'a>(
    destination: &Destination,
    path: PathView<'_>,
    universe: &'a str,
) -> Option<BuiltinRule<'a>> {
    if let Some(row) = fixed(destination, path) {
        return Some(row);
    }
    let name = eligible(destination)?;
    let domain = domain(universe)?;
    if domain != DEFAULT_UNIVERSE
        && let Some(row) = no_token(name, domain.clone(), path)
    {
        return Some(row);
    }
    is_under(name, &domain).then_some(BuiltinRule::GoogleApi(domain))
}

/// Returns the row that matches `destination` in every universe.
///
/// These rows come before that of the universe, so that a wrong universe domain cannot change the credential of Cloud
/// Run services.
pub(super) fn fixed(destination: &Destination, path: PathView<'_>) -> Option<BuiltinRule<'static>> {
    let name = eligible(destination)?;
    if name == "accounts.google.com" {
        return Some(BuiltinRule::NoToken(ACCOUNTS));
    }
    if is_under(name, RUN_APP) {
        return Some(BuiltinRule::CloudRun);
    }
    if is_under(name, FUNCTIONS) {
        return Some(BuiltinRule::Functions);
    }
    no_token(name, Cow::Borrowed(DEFAULT_UNIVERSE), path)
}

/// Returns every row of a host without a token: those of the universe, and those that are the same in every universe.
pub(super) fn left_out(universe: &str) -> impl Iterator<Item = ExcludedHost<'_>> {
    let own = domain(universe).filter(|domain| domain != DEFAULT_UNIVERSE);
    let domains = own.into_iter().chain([Cow::Borrowed(DEFAULT_UNIVERSE)]);
    domains
        .flat_map(|domain| {
            NO_TOKEN
                .into_iter()
                .chain([("*.mtls", CLIENT_CERTIFICATE), ("www", OAUTH)])
                .map(move |(host, why)| ExcludedHost {
                    host,
                    domain: domain.clone(),
                    why,
                })
        })
        .chain([ACCOUNTS])
}

/// Returns whether only the row of the universe domain can match `destination`.
pub(super) fn needs_universe(destination: &Destination, path: PathView<'_>) -> bool {
    eligible(destination).is_some() && fixed(destination, path).is_none()
}

/// Returns the domains whose hosts get a token.
pub(super) fn granted_domains(universe: &str) -> impl Iterator<Item = Cow<'_, str>> {
    [RUN_APP, FUNCTIONS]
        .into_iter()
        .map(Cow::Borrowed)
        .chain(domain(universe))
}

/// Returns whether the row of `origin` depends on the path.
pub(super) fn depends_on_path(origin: &Origin, universe: &str) -> bool {
    let Some(name) = origin.host.name() else {
        return false;
    };
    let is_www = |domain: &str| name.strip_prefix("www.").is_some_and(|rest| rest == domain);
    is_www(DEFAULT_UNIVERSE) || domain(universe).is_some_and(|domain| is_www(&domain))
}

/// Returns whether the host is a Google API of the universe.
pub(crate) fn is_google_api(host: &Host, universe: &str) -> bool {
    host.name()
        .zip(domain(universe))
        .is_some_and(|(name, domain)| is_under(name, &domain))
}

/// Returns whether `name` is below `domain`, by whole labels: `a.run.app` is below `run.app`; `run.app` and `arun.app`
/// are not.
pub(crate) fn is_under(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty())
}

/// Returns the host name that the rows match, or `None` for an address, a URL with user info, or another port than 80
/// and 443. `http://HOST:443/` matches too: port 443 is called over TLS.
fn eligible(destination: &Destination) -> Option<&str> {
    let origin = &destination.origin;
    let usual = origin.is_default_port() || origin.port == Scheme::Https.default_port();
    origin
        .host
        .name()
        .filter(|_| usual && !destination.userinfo)
}

/// Returns the universe domain in the form of hosts, or `None` for one label, which would be a whole top-level domain.
fn domain(universe: &str) -> Option<Cow<'_, str>> {
    let domain = universe.strip_suffix('.').unwrap_or(universe);
    let inner_dot = domain.split_once('.');
    inner_dot.filter(|(first, rest)| !first.is_empty() && !rest.is_empty())?;
    Some(if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(domain.to_ascii_lowercase())
    } else {
        Cow::Borrowed(domain)
    })
}

fn no_token<'a>(name: &str, domain: Cow<'a, str>, view: PathView<'_>) -> Option<BuiltinRule<'a>> {
    let below = name.strip_suffix(&*domain)?.strip_suffix('.')?;
    let (first, rest) = below.split_once('.').unwrap_or((below, ""));
    // "sts.us-central1.rep" is a regional endpoint of the same service. "maps.storage" is a bucket named "maps".
    let row = if rest.is_empty() || rest.ends_with(REGIONAL) {
        NO_TOKEN
            .into_iter()
            .find(|(label, _)| *label == first)
            .or_else(|| {
                let plumbing = below == "www" && path::is_below(&view.text(), "/oauth2");
                plumbing.then_some(("www", OAUTH))
            })
    } else {
        let mtls = MTLS.iter().any(|end| below.ends_with(end));
        mtls.then_some(("*.mtls", CLIENT_CERTIFICATE))
    };
    row.map(|(host, why)| BuiltinRule::NoToken(ExcludedHost { host, domain, why }))
}

// === impl ExcludedHost ===

impl ExcludedHost<'_> {
    /// In the names of [`Self::forms`], stands for any labels.
    pub(super) const ANY: &'static str = "*";
    /// In the names of [`Self::forms`], stands for any region.
    pub(super) const REGION: &'static str = "REGION";

    /// Returns the forms of the names that match this row, without the domain.
    pub(super) fn forms(&self) -> Vec<String> {
        match self.host {
            "*.mtls" => MTLS.map(|end| format!("{}{end}", Self::ANY)).into(),
            host if NO_TOKEN.iter().any(|(label, _)| *label == host) => {
                vec![
                    host.to_owned(),
                    format!("{host}.{}{REGIONAL}", Self::REGION),
                ]
            }
            host => vec![host.to_owned()],
        }
    }

    /// Returns the region of the names that end in `suffix`, if these are names of regional endpoints.
    pub(super) fn region<'s>(&self, suffix: &'s str) -> Option<&'s str> {
        suffix
            .strip_suffix(&*self.domain)?
            .strip_suffix('.')?
            .strip_suffix(REGIONAL)
    }

    /// Returns whether this row has every name that ends in `suffix`.
    pub(super) fn has_all_below(&self, suffix: &str) -> bool {
        let below = suffix.strip_suffix(&*self.domain);
        let below = below.and_then(|below| below.strip_suffix('.'));
        self.host == "*.mtls"
            && below.is_some_and(|below| MTLS.iter().any(|end| format!(".{below}").ends_with(end)))
    }
}

impl fmt::Display for ExcludedHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.host == "www" { "/oauth2/*" } else { "" };
        write!(f, "{}.{}{path}", self.host, self.domain)
    }
}

#[cfg(test)]
mod tests;
