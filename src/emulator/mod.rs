//! A metadata server for development and CI, good enough that Google's client libraries take it for the real one.
//!
//! It answers as Cloud Run's does (`/computeMetadata/v1/…`), with tokens that are worth nothing elsewhere: opaque access
//! tokens, and ID tokens signed by a key made at start. Its public key is served as Google serves its own, so that a
//! service under development can verify them. [`Verifier`] does the same in process.
//!
//! On the same port, with and without TLS, are the token endpoints of Google that credential files name ([`google`]).
//!
//! The issuer is `https://accounts.google.com`, as in the real tokens: code that checks `iss` needs no second
//! setting for development, only another address for the certificates.

mod accept;
mod answer;
mod caller;
mod connection;
#[doc(hidden)]
pub mod google;
mod identity;
mod key;
mod mint;
mod query;
mod real;
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

pub(crate) use identity::{Email, Lifetime, ProjectId, Region};
pub use identity::{ISSUER, Identity};
pub use real::MetadataServer;
pub(crate) use real::{IssuedToken, Issuer, Known, NotIssued, Replacement};
pub(crate) use signer::Access;
pub use verifier::{Refused, Verifier};

use accept::accept;
use connection::{Services, serve};
use google::Google;
use mint::Mint;
use service::Service;
use signer::Signer;
use tls::LocalCa;

/// A bound emulator: callers may connect, and are answered once it runs.
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
    /// Takes the address (port 0 takes a free one) and makes the keys.
    ///
    /// # Errors
    /// The address is taken or not ours; or, never seen, the system has no randomness to make keys from.
    pub async fn bind(address: SocketAddr, identity: Identity) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let signer = Arc::new(Signer::new().map_err(io::Error::other)?);
        let google = Google::with_signer(&identity, Arc::clone(&signer));
        let ca = Arc::new(LocalCa::new().map_err(io::Error::other)?);
        let tls = ca
            .server_config(&[b"h2", b"http/1.1"])
            .map_err(io::Error::other)?;
        let mint = Mint::new(identity, Arc::clone(&signer));
        let metadata = Service::new(mint, signer.key(), address).map_err(io::Error::other)?;
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

    /// The address that callers connect to, with the port that was taken.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells this emulator's tokens from others.
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// Google's token endpoints, which are on the same port.
    #[doc(hidden)]
    pub fn google(&self) -> Arc<Google> {
        Arc::clone(&self.services.google)
    }

    /// The CA of the certificates that TLS on the same port presents.
    #[doc(hidden)]
    pub fn ca(&self) -> Arc<LocalCa> {
        Arc::clone(&self.ca)
    }

    /// Answers until `shutdown` ends; what is under way then is cut off, since every answer is short.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let services = self.services;
        accept(&self.listener, shutdown, |stream| {
            serve(stream, Arc::clone(&services))
        })
        .await;
    }
}
