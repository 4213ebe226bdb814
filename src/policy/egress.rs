//! `--upstream-proxy`: which destinations are called through the proxy.

use std::fmt;

use super::evaluate::is_metadata_server;
use super::no_proxy::NoProxy;
use crate::destination::{Host, Origin};

/// The upstream proxy, and the destinations that bypass it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressProxy {
    /// The proxy.
    pub(crate) host: Host,
    /// Its port.
    pub(crate) port: u16,
    /// `--no-upstream-proxy`.
    pub(crate) no_proxy: NoProxy,
    /// The metadata server as configured. It always bypasses the proxy.
    pub(crate) metadata: (Host, u16),
}

/// Why a destination bypasses the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// `--connect-to` leads to this machine, and the proxy is on another.
    ConnectTo,
    /// `--no-upstream-proxy` names it.
    Listed,
    /// The destination is on this machine, and the proxy is not.
    Loopback,
    /// The destination is the metadata server.
    Metadata,
}

// === impl EgressProxy ===

impl EgressProxy {
    /// Returns why the origin bypasses the proxy, or `None` if it is called through the proxy. `connects_to` is the host
    /// that `--connect-to` gives for it, or its own.
    ///
    /// A remote proxy cannot reach this machine's loopback. Go always excludes loopback, curl never does.
    pub(crate) fn bypass(&self, origin: &Origin, connects_to: &Host) -> Option<Bypass> {
        let is_remote = !self.host.is_loopback();
        if self.is_metadata(&origin.host, origin.port) {
            Some(Bypass::Metadata)
        } else if is_remote && origin.host.is_loopback() {
            Some(Bypass::Loopback)
        } else if is_remote && connects_to.is_loopback() {
            Some(Bypass::ConnectTo)
        } else {
            self.no_proxy.covers(origin).then_some(Bypass::Listed)
        }
    }

    /// Returns the proxy and the bypassed destinations, for the log.
    pub(crate) fn summary(&self) -> String {
        match self.no_proxy.is_empty() {
            true => self.to_string(),
            false => format!("{self}, but not {}", self.no_proxy),
        }
    }

    /// Returns whether the host is the metadata server.
    pub(crate) fn is_metadata(&self, host: &Host, port: u16) -> bool {
        is_metadata_server(host, port, Some(&self.metadata))
    }
}

/// Writes the proxy's URL without credentials.
impl fmt::Display for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

// === impl Bypass ===

impl Bypass {
    /// Returns the reason for messages.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::ConnectTo => "--connect-to leads to this machine, and the proxy is on another",
            Self::Listed => "--no-upstream-proxy names it",
            Self::Loopback => "it is on this machine, and the proxy is not",
            Self::Metadata => "it is the metadata server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Scheme;
    use crate::policy::NoProxyEntry;

    fn egress(proxy: &str) -> EgressProxy {
        EgressProxy {
            host: Host::parse(proxy).unwrap(),
            port: 3128,
            no_proxy: NoProxyEntry::parse("b.example").into_iter().collect(),
            metadata: (Host::parse("10.1.2.3").unwrap(), 8980),
        }
    }

    fn bypass(proxy: &str, authority: &str) -> Option<Bypass> {
        let origin = Origin::from_authority(Scheme::Http, authority).unwrap();
        egress(proxy).bypass(&origin, &origin.host)
    }

    #[test]
    fn hosts_that_are_not_listed_go_through_the_proxy() {
        assert_eq!(bypass("proxy.example", "a.example"), None);
        assert_eq!(bypass("proxy.example", "x.b.example"), Some(Bypass::Listed));
    }

    #[test]
    fn every_name_of_the_metadata_server_is_reached_directly() {
        for authority in [
            "metadata.google.internal",
            "metadata",
            "169.254.169.254",
            "169.254.169.252:988",
            "[fd20:ce::254]",
            "10.1.2.3:8980",
        ] {
            assert_eq!(
                bypass("127.0.0.1", authority),
                Some(Bypass::Metadata),
                "{authority}"
            );
        }
        assert_eq!(bypass("127.0.0.1", "10.1.2.3:80"), None);
    }

    #[test]
    fn loopback_is_reached_through_a_proxy_on_loopback_only() {
        for authority in ["localhost:8080", "127.0.0.2", "[::1]:8080", "app.localhost"] {
            assert_eq!(
                bypass("proxy.example", authority),
                Some(Bypass::Loopback),
                "{authority}"
            );
            assert_eq!(bypass("127.0.0.1", authority), None, "{authority}");
        }
    }
}
