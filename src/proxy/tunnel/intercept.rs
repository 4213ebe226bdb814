//! Opened tunnels: their TLS is terminated here, and the requests inside enter the stack at the top.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::destination::Origin;
use crate::diagnostics::LogEntry;
use crate::intercept::{Interceptor, PrefixedIo};
use crate::proxy::connection::ConnectionState;
use crate::proxy::ingress::{Ingress, IngressKind};
use crate::proxy::request::record::RequestRecord;
use crate::telemetry::{RateLimiter, interception_failed};

/// The capacity of the queue of opened tunnels. The server spawns a task for each without delay.
const WAITING: usize = 64;

/// The app's end of a tunnel, whose first bytes were read and put back.
pub(crate) type Tunnel = PrefixedIo<TokioIo<Upgraded>>;

/// An opened tunnel, which the server serves like any connection of an app.
#[derive(Debug)]
pub(crate) struct OpenedTunnel {
    /// The plaintext of its TLS, or the tunnel itself if it carries plaintext HTTP.
    pub(crate) stream: Either<TlsStream<Tunnel>, Tunnel>,
    /// The ingress of its requests.
    pub(crate) ingress: Arc<Ingress>,
    /// The app's connection, which it is inside.
    pub(crate) outside: Arc<ConnectionState>,
    /// The runtime of the app's connection.
    pub(crate) runtime: Handle,
}

/// Passes opened tunnels to the server.
#[derive(Clone, Debug)]
pub(crate) struct OpenedTunnelSender(mpsc::Sender<OpenedTunnel>);

/// Terminates the TLS of tunnels.
#[derive(Clone, Debug)]
pub(crate) struct Interception {
    /// The CA and its leaf certificates.
    pub(crate) interceptor: Arc<Interceptor>,
    /// Where opened tunnels are served.
    pub(crate) opened: OpenedTunnelSender,
}

// === impl OpenedTunnelSender ===

impl OpenedTunnelSender {
    /// Creates a sender and its receiver.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<OpenedTunnel>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Serves the requests inside a tunnel to this origin. `record` is that of `CONNECT`, which ends here.
    pub(crate) async fn send(
        &self,
        record: Arc<RequestRecord>,
        origin: Origin,
        stream: Either<TlsStream<Tunnel>, Tunnel>,
    ) {
        let outside = record.ingress();
        let ingress = Arc::new(Ingress {
            name: outside.name.clone(),
            metrics: outside.metrics.clone(),
            kind: IngressKind::Intercepted(origin),
        });
        let outside = record.connection().clone();
        drop(record);
        // Fails only if the server shuts down; the app then sees the tunnel end.
        let opened = OpenedTunnel {
            stream,
            ingress,
            outside,
            runtime: Handle::current(),
        };
        let _ = self.0.send(opened).await;
    }
}

// === impl Interception ===

impl Interception {
    /// Accepts the app's TLS handshake with a certificate for the tunnel's host, and serves the requests inside.
    pub(crate) async fn open(
        self,
        record: Arc<RequestRecord>,
        origin: Origin,
        tunnel: Tunnel,
        hints: &RateLimiter,
    ) {
        if let Some(warning) = self.interceptor.expiry_warning(SystemTime::now()) {
            tracing::warn!(help = LogEntry::CaExpires.page(), "{warning}");
        }
        match self.interceptor.accept(&origin.host, tunnel).await {
            Ok(stream) => {
                let stream = Either::Left(stream);
                self.opened.send(record, origin, stream).await;
            }
            Err(error) => {
                interception_failed(hints, &origin, &error, self.interceptor.ca_dir());
                let recent = record.ingress().metrics.recent();
                recent.interception_failed(&origin, &error);
            }
        }
    }
}
