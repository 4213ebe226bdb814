//! A metadata server for development and CI that Google's client libraries accept.
//!
//! It answers like Cloud Run's server (`/computeMetadata/v1/…`), with tokens that are useless elsewhere: opaque access
//! tokens, and ID tokens signed by a key from the start of the process. It publishes the public key like Google, so
//! that a service under development can verify the tokens. [`Verifier`] does the same in process.
//!
//! On the same port, with and without TLS, it serves the token endpoints of Google that credential files name
//! ([`google`]).
//!
//! The issuer is `https://accounts.google.com`, as in real tokens. Code that checks `iss` needs no second setting for
//! development, only another address of the certificates.

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

/// A bound emulator. Callers can connect, and get responses once it runs.
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
    /// Binds the address (port 0 selects a free port) and generates the keys.
    ///
    /// # Errors
    /// Fails if the address is in use or not local, or if the system has no randomness for keys, which was never
    /// observed.
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

    /// Returns the bound address, with the actual port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns a verifier of this emulator's tokens.
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// Returns Google's token endpoints, which share the port.
    #[doc(hidden)]
    pub fn google(&self) -> Arc<Google> {
        Arc::clone(&self.services.google)
    }

    /// Returns the CA of the certificates for TLS on the same port.
    #[doc(hidden)]
    pub fn ca(&self) -> Arc<LocalCa> {
        Arc::clone(&self.ca)
    }

    /// Serves until `shutdown` completes. Requests in progress are then aborted, because every response is short.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let services = self.services;
        accept(&self.listener, shutdown, |stream| {
            serve(stream, Arc::clone(&services))
        })
        .await;
    }
}
