//! Destinations of requests: scheme, host, port and path, parsed once, normalised and compared by value.
//!
//! Every decision about a credential uses these types. Two spellings of one place must therefore be equal here, and a
//! text that is not clearly a host must be refused.

mod embedded;
mod prefix;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;

pub(crate) use embedded::equivalents;
pub(crate) use prefix::{is_under, longest_prefix, upstream_target};

/// `http` or `https`. Other schemes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Cleartext, default port 80.
    Http,
    /// TLS, default port 443.
    Https,
}

/// A host in its normal form.
///
/// Names are lower-case ASCII without a trailing dot. Addresses are parsed from every spelling that a resolver accepts
/// (`2852039166`, `0xA9.254.169.254`, `::ffff:169.254.169.254`), so that no spelling evades a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name.
    Name(Arc<str>),
    /// An IP literal. An IPv4-mapped IPv6 address becomes its IPv4 address.
    Ip(IpAddr),
}

/// Scheme, host and port (RFC 6454): the endpoint of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The scheme.
    pub scheme: Scheme,
    /// The host, which the certificate must name.
    pub host: Host,
    /// The TCP port. It is always explicit.
    pub port: u16,
}

/// The target of a request: an [`Origin`], and the path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The endpoint of the connection.
    pub origin: Origin,
    /// Path and query exactly as the caller wrote them.
    pub target: PathAndQuery,
    /// Whether the URL has user information (`user:password@`). No built-in row matches such a URL.
    pub userinfo: bool,
}

/// The reason that a text is not a destination. The message contains only a short excerpt of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDestination {
    /// The URL cannot be parsed.
    #[error("not a URL: {0}")]
    Url(String),
    /// The scheme is neither `http` nor `https`.
    #[error("scheme {0:?} is not http or https")]
    Scheme(String),
    /// The host is missing or invalid.
    #[error("{0:?} is not a host name or address")]
    Host(String),
    /// The port is not in the range 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
    /// The authority has user information. The message does not show it, because it may be a password.
    #[error("the host has user information before an @ (RFC 9110, 4.2.4): omit it")]
    UserInfo,
}

// === impl Scheme ===

impl Scheme {
    /// Returns 80 or 443.
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Returns `http` or `https`.
    pub(crate) const fn as_str(self) -> &'static str {
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
    /// Parses the host of an authority: a name, an IPv4 address in any spelling, or `[IPv6]`.
    pub fn parse(text: &str) -> Result<Self, InvalidDestination> {
        let invalid = || InvalidDestination::Host(excerpt(text));
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(invalid)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| invalid())?;
            return Ok(Self::from(IpAddr::V6(address)));
        }
        // The usual spelling is tried first, because most callers of a loopback listener write it.
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(invalid());
        }
        // A resolver takes a name whose last label is a number as an address (WHATWG URL, 3.5).
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

    /// Returns the DNS name, or `None` for an address.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Returns whether this is a name below `domain`, compared by labels. `domain` itself is not below itself.
    pub fn is_under(&self, domain: &str) -> bool {
        self.name()
            .and_then(|name| name.strip_suffix(domain))
            .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
    }

    /// Returns whether this is a name of one label, as services of one network use. No web page has such a host.
    pub(crate) fn is_single_label(&self) -> bool {
        self.name().is_some_and(|name| !name.contains('.'))
    }

    /// Returns whether this is `localhost`, `*.localhost` (RFC 6761), 127.0.0.0/8 or `::1`.
    pub(crate) fn is_loopback(&self) -> bool {
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
    /// Parses `host[:port]` without user information. `scheme` gives the default port.
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, InvalidDestination> {
        Self::from_host_and_port(scheme, authority).map_err(|error| {
            if authority.contains('@') || authority.contains("%40") {
                InvalidDestination::UserInfo
            } else {
                error
            }
        })
    }

    fn from_host_and_port(scheme: Scheme, authority: &str) -> Result<Self, InvalidDestination> {
        let (host, port) = split_port(authority)?;
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port: port.unwrap_or_else(|| scheme.default_port()),
        })
    }

    /// Returns whether the port is the scheme's default.
    pub fn is_default_port(&self) -> bool {
        self.port == self.scheme.default_port()
    }

    /// Returns the same origin over TLS: port 80 becomes 443, another port stays.
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

    /// Returns `host` or `host:port`: the value of `Host` and `:authority` (RFC 9110, 7.2).
    pub(crate) fn authority(&self) -> String {
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
    /// Parses an absolute URL that a user wrote.
    pub fn parse(url: &str) -> Result<Self, InvalidDestination> {
        let without_fragment = url.split('#').next().unwrap_or(url);
        let uri: Uri = without_fragment.parse().map_err(|error| {
            // The URL is broken, so its user information may contain any character.
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
            InvalidDestination::Url(format!("{error} ({})", excerpt(shown)))
        })?;
        Self::from_uri(&uri)
    }

    /// Converts an absolute-form request target (RFC 9112, 3.2.2).
    pub(crate) fn from_uri(uri: &Uri) -> Result<Self, InvalidDestination> {
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

    /// Returns the path as written, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.path()
    }

    /// Returns the query as written, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target.as_str() {
            // The target of the whole server is an empty path in a URL (RFC 9112, 3.2.4).
            "*" => self.origin.fmt(f),
            target => write!(f, "{}{target}", self.origin),
        }
    }
}

fn root() -> PathAndQuery {
    PathAndQuery::from_static("/")
}

/// Adds the missing slash: `http://host?query` requests `/?query` (RFC 9112, 3.2.1). HTTP/2 requires a path that begins
/// with a slash.
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
    // "host:" means the default port (RFC 3986, 3.2.3).
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

/// Parses one to four parts, each decimal, octal or hexadecimal. The last part fills the remaining bytes (inet_aton).
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

/// Returns a short, printable excerpt of the input for an error message.
/// Replaces the user information of a URL, which may be a password.
pub(crate) fn hide_user_info(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}USER@{host}{path}"),
        None => url.to_owned(),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Returns whether an address is the metadata server's. All of link-local IPv4 is: Google assigns it to nothing else,
/// and GKE's metadata server has another address of it. The IPv6 address is that of IPv6-only machines.
pub(crate) fn is_metadata_address(address: IpAddr) -> bool {
    const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address == IPV6,
    }
}

#[cfg(test)]
mod tests;
