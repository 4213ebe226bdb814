//! `--no-upstream-proxy`: the destinations that are called without the proxy, as in `NO_PROXY`.
//!
//! `NO_PROXY` has no standard. An entry matches here if it matches in curl or in Go's `httpproxy`:
//!
//! | entry | curl | Go | here |
//! |---|---|---|---|
//! | `a.example` | the name and its subdomains | the same | the same |
//! | `.a.example` | the name and its subdomains | the subdomains | the name and its subdomains |
//! | `*.a.example` | nothing | the subdomains | the subdomains |
//! | `*` | every host, if it is alone | every host | every host |
//! | an address, a CIDR block | the address, the block | the same | the same |
//! | `…:PORT` | nothing | only on that port | only on that port |

use std::fmt;
use std::net::IpAddr;

use crate::destination::{Host, Origin};

/// The entries of `--no-upstream-proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<NoProxyEntry>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProxyEntry {
    /// The text as the user wrote it, in lower case.
    text: String,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// Addresses with the same first bits.
    Block(IpAddr, u8),
    /// Names under a domain, and the domain itself if `apex` is set.
    Domain {
        domain: Host,
        apex: bool,
    },
    One(IpAddr),
}

// === impl NoProxy ===

impl NoProxy {
    /// Splits a list at commas and white space. Empty entries are ignored.
    pub(crate) fn split(list: &str) -> impl Iterator<Item = &str> {
        list.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty())
    }

    /// Returns whether an entry matches the origin.
    pub(crate) fn covers(&self, origin: &Origin) -> bool {
        self.0.iter().any(|entry| entry.covers(origin))
    }

    /// Returns whether the list is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns each entry as written, in lower case.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|entry| entry.text.as_str())
    }
}

impl FromIterator<NoProxyEntry> for NoProxy {
    fn from_iter<I: IntoIterator<Item = NoProxyEntry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{entry}")?;
        }
        Ok(())
    }
}

// === impl NoProxyEntry ===

impl NoProxyEntry {
    /// Parses one entry. Returns `None` for a text that cannot match any host.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (hosts, port) = match block(&text) {
            Some(block) => (block, None),
            None => {
                let (host, port) = split_port(&text)?;
                (hosts(host)?, port)
            }
        };
        Some(Self { text, hosts, port })
    }

    fn covers(&self, origin: &Origin) -> bool {
        self.port.is_none_or(|port| port == origin.port) && self.hosts.cover(&origin.host)
    }
}

// === impl Hosts ===

impl Hosts {
    fn cover(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Block(network, bits), Host::Ip(address)) => is_within(*address, *network, *bits),
            (Self::One(one), Host::Ip(address)) => one == address,
            (Self::Domain { domain, apex }, Host::Name(_)) => {
                *apex && domain == host || domain.name().is_some_and(|name| host.is_under(name))
            }
            (Self::Block(..) | Self::One(_), Host::Name(_))
            | (Self::Domain { .. }, Host::Ip(_)) => false,
        }
    }
}

fn hosts(text: &str) -> Option<Hosts> {
    if text == "*" {
        return Some(Hosts::All);
    }
    if let Some(address) = address(text) {
        return Some(Hosts::One(address));
    }
    let (domain, apex) = match text.strip_prefix("*.") {
        Some(domain) => (domain, false),
        None => (text.strip_prefix('.').unwrap_or(text), true),
    };
    match Host::parse(domain).ok()? {
        domain @ Host::Name(_) => Some(Hosts::Domain { domain, apex }),
        // In every spelling that a resolver accepts.
        Host::Ip(address) => (domain == text).then_some(Hosts::One(address)),
    }
}

/// Parses `ADDRESS/BITS`.
fn block(text: &str) -> Option<Hosts> {
    let (network, bits) = text.split_once('/')?;
    let network = unbracketed(network).parse::<IpAddr>().ok()?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    let digits = bits.bytes().all(|b| b.is_ascii_digit());
    let bits = bits.parse().ok().filter(|bits| digits && *bits <= most)?;
    // Destinations have IPv4-mapped addresses as IPv4.
    match network.to_canonical() {
        canonical @ IpAddr::V4(_) if network.is_ipv6() && bits >= 96 => {
            Some(Hosts::Block(canonical, bits - 96))
        }
        _ => Some(Hosts::Block(network, bits)),
    }
}

/// Splits host and port. The colons of an IPv6 address do not begin a port.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if address(text).is_some() {
        return Some((text, None));
    }
    match text.rsplit_once(':') {
        None => Some((text, None)),
        Some((host, port)) => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port > 0)?;
            Some((host, Some(port)))
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = unbracketed(text).parse().ok()?;
    Some(address.to_canonical())
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text)
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            u128::from(address.to_bits() ^ network.to_bits()) << 96
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => address.to_bits() ^ network.to_bits(),
        _ => return false,
    };
    u32::from(bits) <= differ.leading_zeros()
}

#[cfg(test)]
#[path = "no_proxy/tests.rs"]
mod tests;
