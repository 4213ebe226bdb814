//! Parked HTTP/1.1 connections.
//!
//! hyper's buffers and its channel of requests take three quarters of an idle connection's memory, and hyper releases
//! them only at its end. So it is ended for a connection that stays idle, and started again on the same socket for the
//! next request.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{self, Connection, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::h1::Http1Connection;
use super::target_pool::Pool;
use crate::memory::Charge;
use crate::upstream::cancellable_body::{CancellableBody, SendableBody};
use crate::upstream::failure::UpstreamPeer;
use crate::upstream::io::UpstreamIo;
use crate::upstream::receive_state::ReceiveState;

/// The maximum number of fields in a response's head. hyper's own limit, 100, is too small for some upstreams.
const MAX_HEADERS: usize = 256;

/// The maximum number of bytes of a response's head, and of the bytes that are read or written ahead.
const MAX_BUFFER: usize = 512 * 1024;

/// The time limit for the end of TLS at a close. An upstream that does not read could hold it up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// hyper's handle of a connection, which takes requests.
pub(super) type Sender<B> = SendRequest<CancellableBody<B>>;

/// hyper's future of a connection, which reads and writes.
pub(super) type Driver<B> = Box<Connection<TokioIo<UpstreamIo>, CancellableBody<B>>>;

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

/// Starts hyper on a socket.
pub(super) async fn start<B: SendableBody>(
    io: UpstreamIo,
) -> hyper::Result<(Sender<B>, Driver<B>)> {
    let (sender, driver) = http1::Builder::new()
        // Some servers compare field names case-sensitively, so the app's spelling is kept.
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(io))
        .await?;
    // Boxed, so that the task of a parked connection does not hold the place for it.
    Ok((sender, Box::new(driver)))
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
        let received = !read_buf.is_empty();
        // It has hyper's whole buffer.
        drop(read_buf);
        // Nothing may arrive without a request, so it is a close, or an upstream that cannot be trusted.
        let woken = tokio::select! {
            biased;
            () = readable(&mut io, received) => None,
            reply = wake.recv() => reply,
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

/// Waits until anything can be read: bytes, the end, or an error. `received`: hyper has read bytes before.
async fn readable(io: &mut UpstreamIo, received: bool) {
    if received {
        return;
    }
    poll_fn(|cx| {
        let mut byte = [0];
        Pin::new(&mut *io)
            .poll_read(cx, &mut ReadBuf::new(&mut byte))
            .map(drop)
    })
    .await;
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
