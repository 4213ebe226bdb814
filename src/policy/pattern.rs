//! The patterns of rules: which destinations a rule matches.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use super::builtin::{FUNCTIONS, RUN_APP, is_under};
use super::path::{self, Readings};
use crate::destination::{Destination, Host, Origin};

/// A pattern of destinations: a host or `*.suffix`, with an optional port and path prefix.
///
/// Without a port, any port matches. With a port, it must be the port of the URL as the app wrote it; the default is 80
/// for `http://` and 443 for `https://`. A path prefix matches whole segments, in any spelling of the path.
///
/// ```
/// use sidentity::destination::Destination;
/// use sidentity::policy::Pattern;
///
/// let pattern = Pattern::parse("*.internal.example/v2")?;
/// assert!(pattern.matches(&Destination::parse("https://a.internal.example/v2/x").unwrap()));
/// assert!(!pattern.matches(&Destination::parse("https://internal.example/v2/x").unwrap()));
/// # Ok::<(), sidentity::policy::InvalidPattern>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    host: HostPattern,
    port: Option<u16>,
    /// The normalised prefix, then its other readings if it has several. With a leading slash, without a trailing one.
    paths: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum HostPattern {
    Exact(Host),
    /// `*.example.com` is stored as `.example.com`. It matches whole labels, but not `example.com` itself.
    Suffix(String),
}

/// Why a text is not a valid [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {text:?}: {why}")]
pub struct InvalidPattern {
    text: String,
    why: Cow<'static, str>,
}

/// The sort key that orders more specific patterns first: exact host, longer suffix, with a port, longer path.
pub(super) type Specificity = Reverse<(bool, usize, bool, usize)>;

// === impl Pattern ===

impl Pattern {
    /// Parses `HOST`, `*.SUFFIX` or an IP literal, with an optional `:PORT` and `/PATH-PREFIX`.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        Self::parts(text).map_err(|why| InvalidPattern {
            text: text.chars().filter(|c| !c.is_control()).take(80).collect(),
            why,
        })
    }

    /// Returns whether the pattern matches the destination.
    pub fn matches(&self, destination: &Destination) -> bool {
        self.matches_origin(&destination.origin)
            && self.paths.as_ref().is_none_or(|prefixes| {
                let path = path::normalize(destination.path());
                prefixes.iter().any(|prefix| path::is_below(&path, prefix))
            })
    }

    /// Like [`Self::matches`], but ignores the path.
    pub(super) fn matches_origin(&self, origin: &Origin) -> bool {
        self.port.is_none_or(|port| port == origin.port) && self.matches_host(&origin.host)
    }

    pub(super) fn matches_host(&self, host: &Host) -> bool {
        match &self.host {
            HostPattern::Exact(exact) => exact == host,
            HostPattern::Suffix(suffix) => host
                .name()
                .is_some_and(|name| name.len() > suffix.len() && name.ends_with(suffix)),
        }
    }

    /// Returns the normalised path prefix, then its other readings, or `None` if every path matches.
    pub(super) fn paths(&self) -> Option<&[String]> {
        self.paths.as_deref()
    }

    pub(super) fn has_path(&self) -> bool {
        self.paths.is_some()
    }

    /// Returns the host, or the suffix without its wildcard, or `None` for an address.
    pub(super) fn domain(&self) -> Option<&str> {
        match &self.host {
            HostPattern::Exact(host) => host.name(),
            HostPattern::Suffix(suffix) => Some(suffix.trim_start_matches('.')),
        }
    }

    /// Returns whether the pattern matches only hosts of Cloud Run or of Cloud Run functions.
    pub(super) fn is_serverless(&self) -> bool {
        self.domain().is_some_and(|domain| {
            [RUN_APP, FUNCTIONS].into_iter().any(|serverless| {
                is_under(domain, serverless) || (domain == serverless && self.suffix().is_some())
            })
        })
    }

    /// Returns the suffix without its wildcard, if the pattern has one.
    pub(super) fn suffix(&self) -> Option<&str> {
        match &self.host {
            HostPattern::Exact(_) => None,
            HostPattern::Suffix(suffix) => Some(suffix.trim_start_matches('.')),
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(super) fn specificity(&self) -> Specificity {
        let (exact, suffix) = match &self.host {
            HostPattern::Exact(_) => (true, 0),
            HostPattern::Suffix(suffix) => (false, suffix.len()),
        };
        let path = self.path().map_or(0, str::len);
        Reverse((exact, suffix, self.port.is_some(), path))
    }

    fn path(&self) -> Option<&str> {
        self.paths.as_ref()?.first().map(String::as_str)
    }

    fn parts(text: &str) -> Result<Self, Cow<'static, str>> {
        if let Some((scheme, _)) = text.split_once("://")
            && !scheme.contains('/')
        {
            return Err("leave the scheme out; a pattern is HOST[:PORT][/PATH-PREFIX]".into());
        }
        let (authority, path) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let (host, port) = split_port(authority)?;
        Ok(Self {
            host: HostPattern::parse(host)?,
            port: port.map(parse_port).transpose()?,
            paths: parse_path(path)?,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(host) => host.fmt(f)?,
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        // An unescaped `*` would be read as a wildcard.
        f.write_str(&self.path().unwrap_or("").replace('*', "%2A"))
    }
}

// === impl HostPattern ===

impl HostPattern {
    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.is_empty() {
            return Err("the host is missing; write HOST or *.SUFFIX".into());
        }
        if text == "*" {
            return Err(
                "`*` alone would name every host there is; write *.SUFFIX such as *.example.com (for all that no rule \
                 names there is --unmatched)"
                    .into(),
            );
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return match Host::parse(suffix) {
                Ok(Host::Name(name)) => Ok(Self::Suffix(format!(".{name}"))),
                Ok(Host::Ip(_)) => Err("an address has no suffix; write it out".into()),
                Err(_) if suffix.is_empty() => {
                    Err("`*.` needs a suffix, as in *.example.com".into())
                }
                Err(error) => Err(error.to_string().into()),
            };
        }
        if text.contains('*') {
            return Err("`*` replaces only whole labels at the front, as in *.example.com".into());
        }
        Host::parse(text)
            .map(Self::Exact)
            .map_err(|error| error.to_string().into())
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Cow<'static, str>> {
    // "[::1]:80": colons inside the brackets do not separate the port.
    let after_address = authority.find(']').map_or(0, |bracket| bracket + 1);
    let (address, rest) = authority.split_at(after_address);
    match rest.rfind(':') {
        None => Ok((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(address.len() + colon);
            if address.is_empty() && host.contains(':') {
                return Err("write an IPv6 address in brackets, as in [::1]".into());
            }
            Ok((host, Some(port.trim_start_matches(':'))))
        }
    }
}

fn parse_port(text: &str) -> Result<u16, Cow<'static, str>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err("the port must be a number from 1 to 65535; omit it for any port".into()),
    }
}

fn parse_path(text: &str) -> Result<Option<Vec<String>>, Cow<'static, str>> {
    if text.contains(['?', '#']) {
        return Err("a pattern ends with the path; a query or fragment cannot be matched".into());
    }
    if text.contains('*') {
        return Err("the path must not contain *: it is a literal prefix, write /v2 for /v2 and everything below".into());
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a path has no white space; write %20".into());
    }
    let path = path::normalize(text);
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(None);
    }
    let mut paths = vec![path.to_owned()];
    match path::readings(path) {
        Readings::One => {}
        Readings::Several(others) => {
            for other in others {
                let other = other.trim_end_matches('/');
                if !other.is_empty() && !paths.iter().any(|path| path == other) {
                    paths.push(other.to_owned());
                }
            }
        }
        Readings::Unknown => {
            return Err(
                "the path can be read in too many ways; write it without escapes of escapes".into(),
            );
        }
    }
    Ok(Some(paths))
}

#[cfg(test)]
mod tests;
