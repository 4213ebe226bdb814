//! Opens a connection to an origin: `--connect-to`, name resolution, dial policy, TCP, the proxy's tunnel, TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connect_to::{self, redirect};
use super::dial_policy::{DialPolicy, Refusal};
use super::eyeballs;
use super::failure::{Failure, UpstreamPeer};
use super::io::UpstreamStream;
use super::target::Target;
use super::tls::{AlpnOffer, BadRoots, Tls, chose_http2};
use super::via_proxy;
use crate::config::{self, ConnectTo, UpstreamProxy};
use crate::destination::{Host, Origin, Scheme};
use crate::dns::{Priority, Resolver, Unresolved};
use crate::error::ErrorKind;
use crate::lock::lock;
use crate::telemetry::{Connect, Metrics};

/// The time after which a silent peer is probed. It is probed again every [`PROBES`].
const KEEPALIVE: Duration = Duration::from_secs(30);
const PROBES: Duration = Duration::from_secs(10);

/// A connection fails if sent data is not acknowledged for this long (`TCP_USER_TIMEOUT`). The kernel also counts the
/// time in which the peer's window is closed, and an HTTP/1.1 server may pause an upload for a while.
const UNACKNOWLEDGED_HTTP1: Duration = Duration::from_secs(120);
const UNACKNOWLEDGED_HTTP2: Duration = Duration::from_secs(60);

/// Opens connections.
#[derive(Debug)]
pub(super) struct Dialer {
    connect_to: Vec<ConnectTo>,
    proxy: Option<Arc<UpstreamProxy>>,
    policy: DialPolicy,
    /// The last known addresses of the metadata server's name, for lookups that fail.
    metadata: Mutex<Vec<SocketAddr>>,
    resolver: Resolver,
    tls: Tls,
    /// The time limit of each step: name resolution, TCP, TLS, the HTTP/2 preface.
    pub(super) timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
}

/// An open connection before its first request.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: UpstreamStream,
    pub(super) http2: bool,
    pub(super) peer: UpstreamPeer,
}

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(
        config: &config::UpstreamConfig,
        policy: DialPolicy,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadRoots> {
        Ok(Self {
            connect_to: config.connect_to.clone(),
            proxy: config.proxy.clone(),
            policy,
            metadata: Mutex::default(),
            resolver: Resolver::new(),
            tls: Tls::new(config)?,
            timeout: config.connect_timeout,
            metrics,
        })
    }

    /// Returns the proxy through which this origin is called.
    pub(super) fn proxy(&self, origin: &Origin) -> Option<&Arc<UpstreamProxy>> {
        self.proxy
            .as_ref()
            .filter(|proxy| connect_to::bypass(&proxy.egress, &self.connect_to, origin).is_none())
    }

    /// Returns whether requests to this target are sent to a proxy in absolute form. As in curl, `--connect-to` applies
    /// to the destination of a `CONNECT`.
    pub(super) fn forwards(&self, target: &Target) -> bool {
        let origin = &target.origin;
        origin.scheme == Scheme::Http
            && target.alpn_offer() == AlpnOffer::Http1
            && self.proxy(origin).is_some()
            && !connect_to::redirects(&self.connect_to, origin)
    }

    /// Connects, and performs the TLS handshake for `https`.
    pub(super) async fn dial(
        &self,
        target: &Target,
        priority: Priority,
    ) -> Result<Dialled, Failure> {
        let (origin, offer) = (&target.origin, target.alpn_offer());
        let (stream, peer) = match self.proxy(origin) {
            Some(proxy) if target.proxy_may_read => self.to_proxy(proxy, origin).await?,
            _ => self.tcp(origin, priority).await?,
        };
        let dialled = match origin.scheme {
            Scheme::Http => Dialled {
                stream: UpstreamStream::Plain(stream),
                http2: offer == AlpnOffer::Http2,
                peer,
            },
            Scheme::Https => self.secure(stream, peer, offer).await?,
        };
        give_up_unacknowledged(&dialled);
        Ok(dialled)
    }

    /// Connects directly, or through a tunnel of the proxy.
    pub(super) async fn tcp(
        &self,
        origin: &Origin,
        priority: Priority,
    ) -> Result<(TcpStream, UpstreamPeer), Failure> {
        let Some(proxy) = self.proxy(origin) else {
            let (host, port) = redirect(&self.connect_to, origin);
            let peer = UpstreamPeer {
                origin: origin.clone(),
                proxy: None,
                address: None,
            };
            return self.connect(peer, &host, port, priority).await;
        };
        let (mut stream, peer) = self.to_proxy(proxy, origin).await?;
        let (host, port) = redirect(&self.connect_to, origin);
        via_proxy::open_tunnel(&mut stream, &peer, proxy, &host, port, self.timeout).await?;
        Ok((stream, peer))
    }

    /// Connects to the proxy. The proxy resolves the destination's name, so the dial policy is checked by the name.
    async fn to_proxy(
        &self,
        proxy: &Arc<UpstreamProxy>,
        origin: &Origin,
    ) -> Result<(TcpStream, UpstreamPeer), Failure> {
        let peer = UpstreamPeer {
            origin: origin.clone(),
            proxy: Some(Arc::clone(proxy)),
            address: None,
        };
        let (host, port) = redirect(&self.connect_to, origin);
        let metadata = self.metadata_addresses(port).await;
        if let Some(refusal) = self.policy.unresolved(&host, port, &metadata) {
            return Err(refused(&peer, refusal));
        }
        let egress = &proxy.egress;
        // All calls depend on this name.
        self.connect(peer, &egress.host, egress.port, Priority::High)
            .await
    }

    /// Connects to a host.
    async fn connect(
        &self,
        mut peer: UpstreamPeer,
        host: &Host,
        port: u16,
        priority: Priority,
    ) -> Result<(TcpStream, UpstreamPeer), Failure> {
        let addresses = self
            .resolver
            .resolve(host, port, priority, self.timeout)
            .await
            .map_err(|error| unresolved(&peer, host, &error))?;
        peer.address = addresses.first().copied();
        let metadata = self.metadata_addresses(port).await;
        for address in &addresses {
            if let Some(refusal) = self.policy.address(*address, &metadata) {
                peer.address = Some(*address);
                return Err(refused(&peer, refusal));
            }
        }
        let (stream, address) = timeout(self.timeout, eyeballs::connect(addresses))
            .await
            .map_err(|_| Failure::timed_out(&peer, "TCP connection", self.timeout))?
            .map_err(|(address, error)| {
                peer.address = address;
                Failure::connect(&peer, &error)
            })?;
        peer.address = Some(address);
        self.prepare(&stream, &peer, &metadata)?;
        Ok((stream, peer))
    }

    /// Resolves the metadata server's name, if connections to it are refused and this may be its port. A name can get
    /// another address at any time.
    async fn metadata_addresses(&self, port: u16) -> Vec<SocketAddr> {
        let Some(host) = self.policy.metadata_host(port) else {
            return Vec::new();
        };
        let resolved = self
            .resolver
            .resolve(host, port, Priority::High, self.timeout)
            .await;
        let mut known = lock(&self.metadata);
        if let Ok(addresses) = resolved {
            *known = addresses;
        }
        known.clone()
    }

    /// Gives a queued lookup of the origin's name [`Priority::High`].
    pub(super) fn promote(&self, origin: &Origin) {
        if self.proxy(origin).is_none() {
            let (host, _) = redirect(&self.connect_to, origin);
            self.resolver.promote(&host);
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        peer: UpstreamPeer,
        offer: AlpnOffer,
    ) -> Result<Dialled, Failure> {
        let handshake = self.tls.connect(offer, &peer.origin.host, stream);
        let stream = timeout(self.timeout, handshake)
            .await
            .map_err(|_| Failure::timed_out(&peer, "TLS handshake", self.timeout))?
            .map_err(|error| Failure::tls(&peer, &error))?;
        let http2 = chose_http2(&stream);
        if offer == AlpnOffer::Http2 && !http2 {
            return Err(Failure::new(
                ErrorKind::TlsProtocol,
                format!("{peer}: the upstream does not speak HTTP/2"),
            ));
        }
        Ok(Dialled {
            stream: UpstreamStream::Tls(Box::new(stream)),
            http2,
            peer,
        })
    }

    fn prepare(
        &self,
        stream: &TcpStream,
        peer: &UpstreamPeer,
        metadata: &[SocketAddr],
    ) -> Result<(), Failure> {
        let broken = |error: io::Error| Failure::connect(peer, &error);
        let local = stream.local_addr().map_err(broken)?;
        let remote = stream.peer_addr().map_err(broken)?;
        if let Some(refusal) = self.policy.connection(local, remote, metadata) {
            return Err(refused(peer, refusal));
        }
        // If nothing listens on the port, and the kernel chose the same port for this socket, it connects to itself.
        if local == remote {
            return Err(Failure::connect(
                peer,
                &io::ErrorKind::ConnectionRefused.into(),
            ));
        }
        stream.set_nodelay(true).map_err(broken)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(PROBES);
        SockRef::from(stream)
            .set_tcp_keepalive(&keepalive)
            .map_err(broken)
    }

    /// Counts the result of a dial. A refusal by the dial policy does not count.
    pub(super) fn count<T>(&self, result: &Result<T, Failure>) {
        let kind = |failure: &Failure| (failure.kind, failure.before_tls);
        let outcome = match result.as_ref().map_err(kind) {
            Ok(_) => Connect::Ok,
            Err((ErrorKind::DnsFailed | ErrorKind::DnsTimeout, _)) => Connect::Dns,
            Err((ErrorKind::ConnectionRefused, _)) => Connect::Refused,
            Err((ErrorKind::ConnectionTimeout, _)) => Connect::Timeout,
            Err((
                ErrorKind::CertificateInvalid | ErrorKind::TlsProtocol | ErrorKind::HttpProtocol,
                false,
            )) => Connect::Tls,
            Err((ErrorKind::Denied | ErrorKind::LoopDetected, _)) => return,
            Err(_) => Connect::Error,
        };
        self.metrics.connected(outcome);
    }
}

fn unresolved(peer: &UpstreamPeer, host: &Host, error: &Unresolved) -> Failure {
    let kind = match error {
        Unresolved::TimedOut(_) | Unresolved::NoPermit(_) => ErrorKind::DnsTimeout,
        Unresolved::Failed(_) => ErrorKind::DnsFailed,
        Unresolved::Aborted => ErrorKind::Internal,
    };
    Failure::new(kind, format!("{peer}: {host}: {error}"))
}

/// Sets `TCP_USER_TIMEOUT`, if the kernel supports it. Without it, TCP's retransmissions end after 15 minutes.
fn give_up_unacknowledged(dialled: &Dialled) {
    let within = if dialled.http2 {
        UNACKNOWLEDGED_HTTP2
    } else {
        UNACKNOWLEDGED_HTTP1
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(dialled.stream.tcp()).set_tcp_user_timeout(Some(within));
}

fn refused(peer: &UpstreamPeer, refusal: Refusal) -> Failure {
    Failure::new(refusal.kind(), format!("{peer}: {}", refusal.text()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{Env, HttpVersion, RawConfig};

    /// Checks the socket option, because a loopback peer cannot stop acknowledging.
    #[tokio::test]
    async fn socket_options_detect_a_lost_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = config::load(&RawConfig::default(), &Env::default()).unwrap();
        let metrics = Arc::new(Metrics::new());
        let dialer = Dialer::new(&config.upstream, DialPolicy::default(), metrics).unwrap();
        let origin = Origin::from_authority(Scheme::Http, &address.to_string()).unwrap();
        for (http, within) in [
            (HttpVersion::Http1, UNACKNOWLEDGED_HTTP1),
            (HttpVersion::Http2, UNACKNOWLEDGED_HTTP2),
        ] {
            let target = Target {
                origin: origin.clone(),
                http,
                proxy_may_read: false,
                upgrade: false,
            };
            let dialled = dialer.dial(&target, Priority::Normal).await.unwrap();
            let socket = SockRef::from(dialled.stream.tcp());
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(within));
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBES);
        }
        let (tunnel, _) = dialer.tcp(&origin, Priority::Normal).await.unwrap();
        assert!(SockRef::from(&tunnel).keepalive().unwrap());
    }
}
