//! A metadata server for development and CI, compatible with Google's client libraries.
//!
//! [`Emulator`] answers as Cloud Run's does (`/computeMetadata/v1/…`), with tokens that no other service accepts:
//! opaque access tokens, and ID tokens signed by a key made at start. Its public key is served as Google serves its
//! own, so that a service under development can verify them. [`Verifier`] does the same in process.
//!
//! [`RealTokenServer`] answers in the same way with real tokens of a credential, and has none of the emulator's keys.
//!
//! On the emulator's port, with and without TLS, are the token endpoints of Google that credential files name
//! ([`google`]).
//!
//! The issuer is `https://accounts.google.com`, as in real tokens. Code that checks `iss` needs no second setting for
//! development, only another address of the certificates.

mod accept;
mod caller;
mod connection;
#[doc(hidden)]
pub mod google;
mod http_connection;
mod identity;
mod key;
mod mint;
mod query_params;
mod real_token_server;
mod response;
mod service;
mod signer;
#[doc(hidden)]
pub mod tls;
mod tree;
mod verifier;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) use http_connection::{HttpVersions, RespondFn, head_deadline, serve_http};
pub use identity::ISSUER;
pub use identity::Identity;
pub(crate) use identity::{Email, Lifetime, ProjectId, Region};
pub(crate) use real_token_server::RealTokenServer;
pub(crate) use real_token_server::{IssuedToken, Issuer, KnownIdentity, NotIssued, Replacement};
pub(crate) use signer::AccessTokenInfo;
pub use verifier::Refused;
pub use verifier::Verifier;

use accept::accept;
use connection::{Services, serve};
use google::Google;
use mint::TokenIssuer;
use service::MetadataService;
use signer::TokenSigner;
use tls::LocalCa;

/// A bound emulator. Connections queue until [`run`](Self::run).
pub struct Emulator {
    listener: TcpListener,
    address: SocketAddr,
    services: Arc<Services>,
    ca: Arc<LocalCa>,
    verifier: Verifier,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

// === impl Emulator ===

impl Emulator {
    /// Binds the address (port 0: a free one) and makes the keys.
    ///
    /// # Errors
    ///
    /// The address is in use or cannot be bound, or the system has no randomness.
    pub async fn bind(address: SocketAddr, identity: Identity) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let signer = Arc::new(TokenSigner::new().map_err(io::Error::other)?);
        let google = Google::with_signer(&identity, Arc::clone(&signer));
        let ca = Arc::new(LocalCa::new().map_err(io::Error::other)?);
        let tls = ca
            .server_config(&[b"h2", b"http/1.1"])
            .map_err(io::Error::other)?;
        let mint = TokenIssuer::new(identity, Arc::clone(&signer));
        let metadata =
            MetadataService::new(mint, signer.key(), address).map_err(io::Error::other)?;
        Ok(Self {
            listener,
            address,
            services: Arc::new(Services {
                metadata,
                google: Arc::new(google.map_err(io::Error::other)?),
                tls: TlsAcceptor::from(Arc::new(tls)),
            }),
            ca,
            verifier: signer.verifier(),
        })
    }

    /// The address that callers connect to, with the bound port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns a verifier of this emulator's tokens.
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// Returns Google's token endpoints, which share the port.
    #[doc(hidden)]
    pub(crate) fn google(&self) -> Arc<Google> {
        Arc::clone(&self.services.google)
    }

    /// Returns the CA of the certificates for TLS on the same port.
    #[doc(hidden)]
    pub(crate) fn ca(&self) -> Arc<LocalCa> {
        Arc::clone(&self.ca)
    }

    /// Answers until `shutdown` completes. Requests in flight are cancelled then, because every answer is short.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let services = self.services;
        accept(&self.listener, shutdown, |stream| {
            serve(stream, Arc::clone(&services))
        })
        .await;
    }
}
