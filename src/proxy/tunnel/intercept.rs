//! Tunnels that are opened: their TLS, if any, ends here, and what comes out begins again at the top of the stack.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::destination::Origin;
use crate::intercept::{Interceptor, Rewind};
use crate::proxy::ingress::{Ingress, IngressKind};
use crate::proxy::request::record::RequestRecord;
use crate::telemetry::{Seldom, interception_failed};

/// OpenedTunnel tunnels on their way up; each waits no longer than the server takes to begin a task.
const WAITING: usize = 64;

/// An app's end of a tunnel, of which some bytes were looked at.
pub(crate) type Tunnel = Rewind<TokioIo<Upgraded>>;

/// A tunnel that is served like any other connection of an app.
#[derive(Debug)]
pub struct OpenedTunnel {
    /// The inside of its TLS, or the tunnel itself where HTTP is spoken in cleartext.
    pub stream: Either<TlsStream<Tunnel>, Tunnel>,
    /// What it is for.
    pub ingress: Arc<Ingress>,
}

/// Hands opened tunnels to the server.
#[derive(Clone, Debug)]
pub struct OpenedTunnelSender(mpsc::Sender<OpenedTunnel>);

/// Opens the TLS of tunnels.
#[derive(Clone, Debug)]
pub struct Interception {
    /// The CA and what it signs.
    pub interceptor: Arc<Interceptor>,
    /// Where the inside is served.
    pub opened: OpenedTunnelSender,
}

// === impl OpenedTunnelSender ===

impl OpenedTunnelSender {
    /// A sender, and the end where its tunnels come out.
    pub fn channel() -> (Self, mpsc::Receiver<OpenedTunnel>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Serves the inside of a tunnel to this origin. The record is that of `CONNECT`: it is over when those inside begin.
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
        drop(record);
        // It fails when the server is closing: the app sees the tunnel end.
        let _ = self.0.send(OpenedTunnel { stream, ingress }).await;
    }
}

// === impl Interception ===

impl Interception {
    /// The app's handshake, with a certificate for the tunnel's own host.
    pub(crate) async fn open(
        self,
        record: Arc<RequestRecord>,
        origin: Origin,
        tunnel: Tunnel,
        hints: &Seldom,
    ) {
        if let Some(warning) = self.interceptor.expiry_warning(SystemTime::now()) {
            tracing::warn!("{warning}");
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
