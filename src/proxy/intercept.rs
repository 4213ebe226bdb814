//! Tunnels that are opened: their TLS ends here, and what comes out of it begins again at the top of the stack.

use std::sync::Arc;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::entrance::{Entrance, Way};
use super::exchange::Exchange;
use crate::destination::Origin;
use crate::intercept::{Interceptor, Rewind};
use crate::telemetry::{Seldom, interception_failed};

/// Opened tunnels on their way up; each waits no longer than the server takes to begin a task.
const WAITING: usize = 64;

/// An app's end of a tunnel, of which some bytes were looked at.
pub(super) type Tunnel = Rewind<TokioIo<Upgraded>>;

/// A tunnel whose TLS is open. It is served like any other connection of an app.
#[derive(Debug)]
pub struct Opened {
    /// Cleartext.
    pub stream: TlsStream<Tunnel>,
    /// What it is for.
    pub entrance: Arc<Entrance>,
}

/// Opens tunnels, and hands them to whoever serves connections.
#[derive(Clone, Debug)]
pub struct Interception {
    /// The CA and what it signs.
    pub interceptor: Arc<Interceptor>,
    opened: mpsc::Sender<Opened>,
}

// === impl Interception ===

impl Interception {
    /// What it opens comes out of the other end.
    pub fn new(interceptor: Arc<Interceptor>) -> (Self, mpsc::Receiver<Opened>) {
        let (opened, receiver) = mpsc::channel(WAITING);
        let interception = Self {
            interceptor,
            opened,
        };
        (interception, receiver)
    }

    /// The app's handshake, with a certificate for the tunnel's own host. The exchange is that of `CONNECT`: it is over
    /// when those inside begin.
    pub(super) async fn open(
        self,
        exchange: Arc<Exchange>,
        origin: Origin,
        tunnel: Tunnel,
        hints: &Seldom,
    ) {
        match self.interceptor.accept(&origin.host, tunnel).await {
            Ok(stream) => {
                let outside = exchange.entrance();
                let entrance = Arc::new(Entrance {
                    name: outside.name.clone(),
                    metrics: outside.metrics.clone(),
                    way: Way::Intercepted(origin),
                });
                // It fails when the server is closing: the app sees the tunnel end.
                let _ = self.opened.send(Opened { stream, entrance }).await;
            }
            Err(error) => {
                interception_failed(hints, &origin, &error, self.interceptor.ca_dir());
                let recent = exchange.entrance().metrics.recent();
                recent.interception_failed(&origin, &error);
            }
        }
    }
}
