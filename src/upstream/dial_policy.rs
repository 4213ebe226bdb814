//! The addresses that are never dialled: the sidecar's own listeners, and the metadata server if it is denied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::connect_to::redirect;
use crate::config::ConnectTo;
use crate::destination::{Host, Origin, equivalents, is_metadata_address};
use crate::error::ErrorKind;

/// The addresses that are refused, independent of the name that resolved to them.
///
/// It is checked after name resolution, so that no spelling and no DNS response can circumvent it.
#[derive(Clone, Debug, Default)]
pub struct DialPolicy {
    /// The sidecar's own TCP listeners, as bound.
    pub own: Vec<SocketAddr>,
    /// Refuse the metadata server (`--metadata-access deny`).
    pub metadata: bool,
    /// Another host and port of the metadata server (`GCE_METADATA_HOST`).
    pub metadata_extra: Option<(Host, u16)>,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The address is one of the sidecar's listeners.
    Loop,
    /// The address is the metadata server's.
    Metadata,
}

// === impl DialPolicy ===

impl DialPolicy {
    /// Returns the host of the metadata server that this port may belong to, if its addresses are refused.
    pub(super) fn metadata_host(&self, port: u16) -> Option<&Host> {
        let (host, extra) = self.metadata_extra.as_ref().filter(|_| self.metadata)?;
        (port == *extra).then_some(host)
    }

    /// Checks a resolved address before anything is sent to it. `metadata_extra`: the addresses of
    /// [`metadata_host`](Self::metadata_host).
    pub(super) fn address(
        &self,
        address: SocketAddr,
        metadata_extra: &[SocketAddr],
    ) -> Option<Refusal> {
        let port = address.port();
        let any = |judge: &dyn Fn(IpAddr) -> bool| equivalents(address.ip()).any(judge);
        if any(&|ip| self.own.iter().any(|own| reaches(ip, port, *own))) {
            return Some(Refusal::Loop);
        }
        let metadata = self.metadata && any(&|ip| is_metadata(ip, port, metadata_extra));
        metadata.then_some(Refusal::Metadata)
    }

    /// Checks a host that a proxy resolves, by its text. `metadata_extra` as in [`address`](Self::address).
    pub(super) fn unresolved(
        &self,
        host: &Host,
        port: u16,
        metadata_extra: &[SocketAddr],
    ) -> Option<Refusal> {
        match host {
            Host::Ip(ip) => self.address(SocketAddr::new(*ip, port), metadata_extra),
            Host::Name(_) if host.is_loopback() => {
                let loopback: [IpAddr; 2] =
                    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                loopback
                    .into_iter()
                    .find_map(|ip| self.address(SocketAddr::new(ip, port), metadata_extra))
            }
            Host::Name(_) => None,
        }
    }

    /// Returns whether a call to this origin is refused because it leads to a listener of the sidecar itself. Resolves
    /// only names of loopback.
    pub(crate) fn leads_here(&self, connect_to: &[ConnectTo], origin: &Origin) -> bool {
        let (host, port) = redirect(connect_to, origin);
        self.unresolved(&host, port, &[]) == Some(Refusal::Loop)
    }

    /// Checks both ends of a connection. A listener on an unspecified address accepts on every address of this machine,
    /// and only the kernel knows these. `metadata_extra` as in [`address`](Self::address).
    pub(super) fn connection(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        metadata_extra: &[SocketAddr],
    ) -> Option<Refusal> {
        let ip = peer.ip().to_canonical();
        if local.ip().to_canonical() != ip {
            return None;
        }
        let own = self.own.iter().any(|own| {
            own.port() == peer.port()
                && (own.ip().is_unspecified() || own.ip().to_canonical() == ip)
        });
        if own {
            return Some(Refusal::Loop);
        }
        // A metadata server on this machine may listen on an unspecified address.
        let metadata = metadata_extra
            .iter()
            .any(|extra| extra.port() == peer.port() && extra.ip().to_canonical().is_loopback());
        metadata.then_some(Refusal::Metadata)
    }
}

fn is_metadata(ip: IpAddr, port: u16, extra: &[SocketAddr]) -> bool {
    is_metadata_address(ip)
        || extra
            .iter()
            .any(|extra| extra.port() == port && reaches(ip, port, *extra))
}

/// Returns whether the listener `own` accepts connections to `ip:port`, as far as the addresses show.
fn reaches(ip: IpAddr, port: u16, own: SocketAddr) -> bool {
    let bound = own.ip().to_canonical();
    // Linux connects to the unspecified address through loopback.
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    own.port() == port && (bound == ip || (bound.is_unspecified() && ip.is_loopback()))
}

// === impl Refusal ===

impl Refusal {
    pub(super) const fn kind(self) -> ErrorKind {
        match self {
            Self::Loop => ErrorKind::LoopDetected,
            Self::Metadata => ErrorKind::Denied,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Loop => "this is a listener of the sidecar itself",
            Self::Metadata => "this is the metadata server, which --metadata-access deny forbids",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(own: &str) -> DialPolicy {
        DialPolicy {
            own: vec![own.parse().unwrap()],
            metadata: true,
            metadata_extra: Some((Host::parse("metadata.test").unwrap(), 8980)),
        }
    }

    /// The addresses of `metadata.test`.
    fn metadata() -> [SocketAddr; 1] {
        ["10.1.2.3:8980".parse().unwrap()]
    }

    #[track_caller]
    fn judged(own: &str, address: &str, expected: Option<Refusal>) {
        let judged = refuse(own).address(address.parse().unwrap(), &metadata());
        assert_eq!(judged, expected, "{address} with a listener on {own}");
    }

    #[test]
    fn own_listeners_are_refused_by_every_address_that_reaches_them() {
        judged("127.0.0.1:3128", "127.0.0.1:3128", Some(Refusal::Loop));
        judged(
            "127.0.0.1:3128",
            "[::ffff:127.0.0.1]:3128",
            Some(Refusal::Loop),
        );
        judged("127.0.0.1:3128", "0.0.0.0:3128", Some(Refusal::Loop));
        judged("0.0.0.0:9090", "127.0.0.9:9090", Some(Refusal::Loop));
        for address in [
            "[64:ff9b::7f00:1]:9090",
            "[2002:7f00:1::]:9090",
            "[::127.0.0.1]:9090",
        ] {
            judged("127.0.0.1:9090", address, Some(Refusal::Loop));
            judged("0.0.0.0:9090", address, Some(Refusal::Loop));
        }
        judged("[::]:9090", "127.0.0.1:9090", Some(Refusal::Loop));
        judged("[::1]:9090", "[::]:9090", Some(Refusal::Loop));
        judged("127.0.0.1:3128", "127.0.0.1:3129", None);
        judged("127.0.0.1:3128", "127.0.0.2:3128", None);
        judged("0.0.0.0:9090", "192.0.2.1:9090", None);
    }

    #[test]
    fn the_metadata_server_is_refused_by_every_address_it_has() {
        for address in [
            "169.254.169.254:80",
            "169.254.169.254:443",
            "[::ffff:169.254.169.254]:80",
            "169.254.169.252:988",
            "[fd20:ce::254]:80",
            "10.1.2.3:8980",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b::a01:203]:8980",
            "[2002:a9fe:a9fe::]:80",
            "[::169.254.169.254]:80",
        ] {
            judged("127.0.0.1:3128", address, Some(Refusal::Metadata));
        }
        judged("127.0.0.1:3128", "10.1.2.3:80", None);
        let pass = DialPolicy {
            metadata: false,
            ..refuse("127.0.0.1:3128")
        };
        assert_eq!(
            pass.address("169.254.169.254:80".parse().unwrap(), &[]),
            None
        );
        assert_eq!(pass.metadata_host(8980), None);
        assert_eq!(refuse("127.0.0.1:3128").metadata_host(80), None);
    }

    #[test]
    fn a_name_that_the_proxy_would_resolve_is_refused_by_its_text() {
        let refuse = refuse("127.0.0.1:3128");
        let judge =
            |host: &str, port| refuse.unresolved(&Host::parse(host).unwrap(), port, &metadata());
        assert_eq!(judge("localhost", 3128), Some(Refusal::Loop));
        assert_eq!(judge("127.0.0.1", 3128), Some(Refusal::Loop));
        assert_eq!(judge("localhost", 3129), None);
        assert_eq!(judge("169.254.169.254", 80), Some(Refusal::Metadata));
        assert_eq!(judge("api.example", 3128), None);
    }

    #[test]
    fn a_wildcard_listener_is_recognised_by_a_connection_to_it() {
        let refuse = refuse("0.0.0.0:9090");
        let judge = |local: &str, peer: &str| {
            refuse.connection(local.parse().unwrap(), peer.parse().unwrap(), &[])
        };
        assert_eq!(
            judge("10.0.0.7:40000", "10.0.0.7:9090"),
            Some(Refusal::Loop)
        );
        assert_eq!(judge("10.0.0.7:40000", "10.0.0.8:9090"), None);
        assert_eq!(judge("10.0.0.7:40000", "10.0.0.7:9091"), None);
    }
}
