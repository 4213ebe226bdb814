//! Where the bytes go: scheme, host, port and path, parsed once, normalised, compared by value.
//!
//! Every decision about a credential is made on these types, so whatever two spellings mean the same place must come
//! out equal here, and whatever is not plainly a host must not come out at all.

mod embedded;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;

pub use embedded::equivalents;

/// `http` or `https`; nothing else is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Cleartext, default port 80.
    Http,
    /// TLS, default port 443.
    Https,
}

/// A host in its one normal form.
///
/// Names are lower case ASCII without a trailing dot; addresses are parsed from every spelling that a resolver takes
/// (`2852039166`, `0xA9.254.169.254`, `::ffff:169.254.169.254`), so that none of them can slip past a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name.
    Name(Arc<str>),
    /// An IP literal; an IPv4-mapped IPv6 address is its IPv4 address.
    Ip(IpAddr),
}

/// Scheme, host and port (RFC 6454): what a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Whom the certificate must name.
    pub host: Host,
    /// The TCP port, always explicit.
    pub port: u16,
}

/// The place a request is for: an [`Origin`], and the path and query asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What a connection is made to.
    pub origin: Origin,
    /// Path and query exactly as the caller wrote them.
    pub target: PathAndQuery,
    /// The URL carried user-info (`user:password@`): no built-in row matches such a URL.
    pub userinfo: bool,
}

/// Why a text is no destination. The text is for people and holds nothing but a short excerpt of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDestination {
    /// The URL cannot be parsed at all.
    #[error("not a URL: {0}")]
    Url(String),
    /// Neither `http` nor `https`.
    #[error("scheme {0:?} is not http or https")]
    Scheme(String),
    /// No host, or a text that is none.
    #[error("{0:?} is not a host name or address")]
    Host(String),
    /// A port that is not 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
}

// === impl Scheme ===

impl Scheme {
    /// 80 or 443.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Host ===

impl Host {
    /// Parses a host as it stands in an authority: a name, an IPv4 address in any spelling, or `[IPv6]`.
    pub fn parse(text: &str) -> Result<Self, InvalidDestination> {
        let invalid = || InvalidDestination::Host(excerpt(text));
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(invalid)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| invalid())?;
            return Ok(Self::from(IpAddr::V6(address)));
        }
        // The usual spelling, ahead of all the others: it is what most callers of a listener on loopback write.
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(invalid());
        }
        // A name whose last label is a number is an address to every resolver (WHATWG URL, 3.5).
        if name.rsplit('.').next().is_some_and(is_number) {
            return parse_ipv4(name)
                .map(|address| Self::Ip(IpAddr::V4(address)))
                .ok_or_else(invalid);
        }
        Ok(if name.bytes().any(|b| b.is_ascii_uppercase()) {
            Self::Name(name.to_ascii_lowercase().into())
        } else {
            Self::Name(name.into())
        })
    }

    /// The DNS name, where it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Whether this is a name below `domain`, by whole labels; `domain` itself is not.
    pub fn is_under(&self, domain: &str) -> bool {
        self.name()
            .and_then(|name| name.strip_suffix(domain))
            .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
    }

    /// A name of one label, as services of one network call each other: no page of the web has such a host.
    pub fn is_single_label(&self) -> bool {
        self.name().is_some_and(|name| !name.contains('.'))
    }

    /// `localhost`, `*.localhost` (RFC 6761), 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => &**name == "localhost" || name.strip_suffix(".localhost").is_some(),
            Self::Ip(address) => address.is_loopback(),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

// === impl Origin ===

impl Origin {
    /// Parses `host[:port]`, without user-info; `scheme` gives the default port.
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, InvalidDestination> {
        let (host, port) = split_port(authority)?;
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port: port.unwrap_or_else(|| scheme.default_port()),
        })
    }

    /// The port is the scheme's own.
    pub fn is_default_port(&self) -> bool {
        self.port == self.scheme.default_port()
    }

    /// The same place over TLS: port 80 becomes 443, another port is kept.
    #[must_use]
    pub fn upgraded(&self) -> Self {
        match self.scheme {
            Scheme::Https => self.clone(),
            Scheme::Http => Self {
                scheme: Scheme::Https,
                host: self.host.clone(),
                port: if self.port == 80 { 443 } else { self.port },
            },
        }
    }

    /// `host` or `host:port`: the value of `Host` and `:authority` (RFC 9110, 7.2).
    pub fn authority(&self) -> String {
        if self.is_default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.is_default_port() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Parses an absolute URL as a user writes it.
    pub fn parse(url: &str) -> Result<Self, InvalidDestination> {
        let without_fragment = url.split('#').next().unwrap_or(url);
        let uri: Uri = without_fragment
            .parse()
            .map_err(|error| InvalidDestination::Url(format!("{error} ({})", excerpt(url))))?;
        Self::from_uri(&uri)
    }

    /// Takes the destination of an absolute-form request target (RFC 9112, 3.2.2).
    pub fn from_uri(uri: &Uri) -> Result<Self, InvalidDestination> {
        let scheme = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            other => return Err(InvalidDestination::Scheme(excerpt(other.unwrap_or("")))),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((_, host)) => (true, host),
            None => (false, authority),
        };
        Ok(Self {
            origin: Origin::from_authority(scheme, host)?,
            target: uri.path_and_query().map_or_else(root, rooted),
            userinfo,
        })
    }

    /// The path, as written, without the query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The query, as written, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target)
    }
}

fn root() -> PathAndQuery {
    PathAndQuery::from_static("/")
}

/// `http://host?query` asks for `/?query` (RFC 9112, 3.2.1): HTTP/2 knows no path without its slash.
fn rooted(target: &PathAndQuery) -> PathAndQuery {
    match target.as_str().strip_prefix('?') {
        Some(query) => PathAndQuery::try_from(format!("/?{query}")).unwrap_or_else(|_| root()),
        None => target.clone(),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidDestination> {
    let colon = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => colon,
        _ => return Ok((authority, None)),
    };
    let (host, port) = authority.split_at(colon);
    let port = port.trim_start_matches(':');
    // "host:" is the default port (RFC 3986, 3.2.3).
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok((host, Some(number))),
        _ => Err(InvalidDestination::Port(excerpt(port))),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .or_else(|| label.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// One to four parts, each decimal, octal or hexadecimal, the last filling what is left (inet_aton).
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(parse_number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let free_bits = 32 - 8 * leading.len() as u32;
    if *last >= 1_u64 << free_bits {
        return None;
    }
    let high = leading.iter().fold(0_u64, |sum, part| sum << 8 | part);
    u32::try_from(high << free_bits | last)
        .ok()
        .map(Ipv4Addr::from)
}

fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    // "0x" alone is zero.
    if digits.is_empty() {
        return (radix == 16).then_some(0);
    }
    u64::from_str_radix(digits, radix)
        .ok()
        .filter(|n| *n <= u64::from(u32::MAX))
}

/// Input shown back in an error: short and printable.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests;
