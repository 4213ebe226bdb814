//! Parked HTTP/1.1 connections.
//!
//! hyper's buffers and its channel of requests take three quarters of an idle connection's memory, and hyper releases
//! them only at its end. So it is ended for a connection that stays idle, and started again on the same socket for the
//! next request.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::h1::{Driver, Http1Connection, Sender, start};
use super::target_pool::Pool;
use crate::memory::Charge;
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::failure::UpstreamPeer;
use crate::upstream::receive_state::ReceiveState;

/// The time limit for the end of TLS at a close. An upstream that does not read could hold it up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the task of a parked connection to start hyper. The task replies with the new handle.
pub(super) type WakeSender<B> = mpsc::Sender<oneshot::Sender<Sender<B>>>;

/// A connection whose task waits for the next request, or for a close by the upstream.
pub(super) struct ParkedConnection<B> {
    pub(super) pool: Weak<Pool<B>>,
    pub(super) received: ReceiveState,
    pub(super) peer: UpstreamPeer,
    pub(super) charge: Charge,
    pub(super) wake: WakeSender<B>,
}

/// Drives a connection until it is closed, also while it is parked. Its handle is dropped to park it, and both the
/// handle and the other end of `wake` to close it.
pub(super) async fn drive<B: SendableBody>(
    mut driver: Driver<B>,
    mut wake: mpsc::Receiver<oneshot::Sender<Sender<B>>>,
) {
    // An error also reaches the request that waits for a response; an idle connection has none.
    while poll_fn(|cx| driver.poll_without_shutdown(cx)).await.is_ok() {
        let Parts { io, read_buf, .. } = driver.into_parts();
        let mut io = io.into_inner();
        // Nothing may arrive without a request, so it is a close, or an upstream that cannot be trusted.
        let woken = if read_buf.is_empty() {
            // hyper's whole buffer.
            drop(read_buf);
            let mut byte = [0];
            tokio::select! {
                biased;
                _ = io.read(&mut byte) => None,
                reply = wake.recv() => reply,
            }
        } else {
            None
        };
        let Some(reply) = woken else {
            let _ = timeout(CLOSE_TIMEOUT, io.shutdown()).await;
            return;
        };
        let Ok((sender, next)) = start(io).await else {
            return;
        };
        driver = next;
        // If the request was cancelled meanwhile, the connection is closed like any other without a handle.
        let _ = reply.send(sender);
    }
}

// === impl ParkedConnection ===

impl<B: SendableBody> ParkedConnection<B> {
    pub(super) fn is_closed(&self) -> bool {
        self.wake.is_closed()
    }

    /// Starts hyper again. Returns `None` if the upstream has closed the connection.
    pub(super) async fn wake(self) -> Option<Arc<Http1Connection<B>>> {
        let (reply, started) = oneshot::channel();
        self.wake.try_send(reply).ok()?;
        let sender = started.await.ok()?;
        Some(Arc::new(Http1Connection::woken(self, sender)))
    }
}
