//! A metadata server for development and CI, good enough that Google's client libraries take it for the real one.
//!
//! It answers as Cloud Run's does (`/computeMetadata/v1/…`), with tokens that are worth nothing elsewhere: opaque access
//! tokens, and ID tokens signed by a key made at start. Its public key is served as Google serves its own, so that a
//! service under development can verify them. [`Verifier`] does the same in process.
//!
//! The issuer is `https://accounts.google.com`, as in the real tokens: code that checks `iss` needs no second
//! setting for development, only another address for the certificates.

mod answer;
#[doc(hidden)]
pub mod google;
mod identity;
mod key;
mod mint;
mod query;
mod service;
mod signer;
#[doc(hidden)]
pub mod tls;
mod tree;
mod verifier;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use identity::{Email, Identity, InvalidIdentity, Lifetime, ProjectId, Region};
pub use signer::Access;
pub use verifier::{Claims, Refused, Verifier};

use mint::Mint;
use service::Service;
use signer::Signer;

use crate::telemetry::Sparse;

/// The `iss` of every ID token.
pub const ISSUER: &str = "https://accounts.google.com";

/// A bound emulator: callers may connect, and are answered once it runs.
#[derive(Debug)]
pub struct Emulator {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
    verifier: Verifier,
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
        let mint = Mint::new(identity, Arc::clone(&signer));
        Ok(Self {
            listener,
            address,
            service: Arc::new(Service::new(mint, signer.key(), address).map_err(io::Error::other)?),
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

    /// Answers until `shutdown` ends; what is under way then is cut off, since every answer is short.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let failures = Sparse::default();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, Arc::clone(&self.service)));
                    }
                    // Out of descriptors, most likely: some must be closed before the next try can succeed.
                    Err(error) => {
                        if let Some(suppressed) = failures.due() {
                            tracing::warn!(%error, suppressed, "cannot accept a connection");
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

async fn serve(stream: TcpStream, service: Arc<Service>) {
    let respond = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(&request)) }
    });
    // Answers are small: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    // No time-out of idle connections: a library's pooled one would close just as it is used again.
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), respond)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a caller broke off");
    }
}
