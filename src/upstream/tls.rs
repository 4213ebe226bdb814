//! TLS with upstreams: trust roots, ALPN, and a shared session cache.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::read_ahead::ReadAhead;
use crate::config;
use crate::destination::Host;

/// The number of hosts whose sessions are cached.
const SESSIONS: usize = 256;

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A trust root that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRoots(String);

/// The protocols offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlpnOffer {
    /// h2 and HTTP/1.1.
    Both,
    /// Only HTTP/1.1: for upgrades, and if the user requires it.
    Http1,
    /// Only h2.
    Http2,
}

/// A client configuration for each [`AlpnOffer`]. All verify alike and share sessions.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    both: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

// === impl Tls ===

impl Tls {
    pub(super) fn new(config: &config::UpstreamConfig) -> Result<Self, BadRoots> {
        let roots = Arc::new(roots(config)?);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let base = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| BadRoots(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.resumption = resumption.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            both: offering(&[H2, HTTP_1_1]),
            http1: offering(&[HTTP_1_1]),
            http2: offering(&[H2]),
        })
    }

    /// Performs the handshake. SNI and the verified name are those of `host`, independent of the dialled address.
    pub(super) async fn connect(
        &self,
        offer: AlpnOffer,
        host: &Host,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<ReadAhead<TcpStream>>> {
        let config = match offer {
            AlpnOffer::Both => &self.both,
            AlpnOffer::Http1 => &self.http1,
            AlpnOffer::Http2 => &self.http2,
        };
        let name = server_name(host).ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                rustls::Error::General("no certificate can exist for such a name".to_owned()),
            )
        })?;
        TlsConnector::from(Arc::clone(config))
            .connect(name, ReadAhead::new(stream))
            .await
    }
}

/// Returns whether the upstream selected h2.
pub(super) fn chose_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(H2)
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
        Host::Ip(IpAddr::V4(ip)) => Some(ServerName::from(*ip)),
        Host::Ip(IpAddr::V6(ip)) => Some(ServerName::from(*ip)),
    }
}

fn roots(config: &config::UpstreamConfig) -> Result<RootCertStore, BadRoots> {
    let mut roots = RootCertStore::empty();
    match &config.system_ca_file {
        Some(file) => {
            let bad = |what: &dyn std::fmt::Display| {
                BadRoots(format!("SSL_CERT_FILE {}: {what}", file.display()))
            };
            let found = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| bad(&error))?;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(bad(&"it contains no certificate"));
            }
        }
        // Unreadable certificates of the system's store are skipped, as in other TLS clients.
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    // The image has no trust store.
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    for root in &config.extra_roots {
        roots
            .add(root.clone())
            .map_err(|error| BadRoots(format!("--upstream-ca: {error}")))?;
    }
    Ok(roots)
}
