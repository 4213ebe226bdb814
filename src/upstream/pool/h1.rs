//! HTTP/1.1 connections. Each carries one request at a time, and is reused only if its last exchange ended cleanly.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lease::{Release, ReleasedParts};
use super::parked::{self, ParkedConnection, WakeSender};
use super::target_pool::Pool;
use crate::lock::lock;
use crate::memory::{Charge, Memory, PARKED_CONNECTION, UPSTREAM_CONNECTION};
use crate::upstream::cancellable_body::{CancellableBody, SendableBody};
use crate::upstream::failure::{Failure, UpstreamPeer};
use crate::upstream::interim::InterimLimiter;
use crate::upstream::io::UpstreamIo;
use crate::upstream::receive_state::ReceiveState;

/// The maximum number of fields in a response's head. hyper's own limit, 100, is too small for some upstreams.
const MAX_HEADERS: usize = 256;

/// The maximum number of bytes of a response's head, and of the bytes that are read or written ahead.
const MAX_BUFFER: usize = 512 * 1024;

/// hyper's handle of a connection, which takes requests.
pub(super) type Sender<B> = SendRequest<CancellableBody<B>>;

/// hyper's future of a connection, which reads and writes.
pub(super) type Driver<B> = Box<Connection<TokioIo<UpstreamIo>, CancellableBody<B>>>;

/// An open connection.
pub(in crate::upstream) struct Http1Connection<B> {
    sender: Mutex<Sender<B>>,
    /// `None` if the connection cannot be parked.
    wake: Option<WakeSender<B>>,
    pool: Weak<Pool<B>>,
    /// The traffic on the socket since the last request began.
    pub(in crate::upstream) received: ReceiveState,
    pub(in crate::upstream) peer: UpstreamPeer,
    /// Counts the connection against `--max-memory`.
    charge: Charge,
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

// === impl Http1Connection ===

impl<B: SendableBody> Http1Connection<B> {
    /// Starts HTTP/1.1 on a socket. Spawns the task that drives the connection. `upgrade`: its requests ask for one.
    pub(super) async fn open(
        io: UpstreamIo,
        upgrade: bool,
        peer: UpstreamPeer,
        pool: Weak<Pool<B>>,
        memory: &Memory,
    ) -> Result<Arc<Self>, Failure> {
        let charge = memory.charge(UPSTREAM_CONNECTION);
        let received = io.receive_state();
        let (sender, driver) = start(io.limiting(InterimLimiter::http1()))
            .await
            .map_err(|error| Failure::exchange(&peer, &error))?;
        let wake = if upgrade {
            tokio::spawn(async move {
                // The error also reaches the request that waits for a response; an idle connection has none.
                let _ = driver.with_upgrades().await;
            });
            None
        } else {
            let (wake, woken) = mpsc::channel(1);
            tokio::spawn(parked::drive(driver, woken));
            Some(wake)
        };
        Ok(Arc::new(Self {
            sender: Mutex::new(sender),
            wake,
            pool,
            received,
            peer,
            charge,
        }))
    }

    /// Returns a parked connection for which hyper was started again.
    pub(super) fn woken(parked: ParkedConnection<B>, sender: Sender<B>) -> Self {
        Self {
            sender: Mutex::new(sender),
            charge: parked.charge.memory().charge(UPSTREAM_CONNECTION),
            wake: Some(parked.wake),
            pool: parked.pool,
            received: parked.received,
            peer: parked.peer,
        }
    }

    /// Parks an idle connection, unless it is in use or its requests ask for an upgrade.
    pub(super) fn park(self: Arc<Self>) -> Result<ParkedConnection<B>, Arc<Self>> {
        let Some(wake) = self.wake.clone() else {
            return Err(self);
        };
        let Self {
            pool,
            received,
            peer,
            charge,
            ..
        } = Arc::try_unwrap(self)?;
        Ok(ParkedConnection {
            charge: charge.memory().charge(PARKED_CONNECTION),
            pool,
            received,
            peer,
            wake,
        })
    }

    /// Sends a request. The error contains the request if hyper has not taken any part of it. The future does not hold
    /// the request, because the request would make it large.
    pub(in crate::upstream) fn send(
        &self,
        mut request: Request<CancellableBody<B>>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<CancellableBody<B>>>>>
    + use<B> {
        request.body_mut().mark_end(self.received.begin());
        lock(&self.sender).try_send_request(request)
    }

    /// Returns whether the last exchange has ended and the connection is open.
    pub(super) fn is_ready(&self) -> bool {
        lock(&self.sender).is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.sender).is_closed()
    }

    /// Waits until hyper has sent the rest of a request whose response has ended.
    async fn ready(&self, within: Duration) -> bool {
        let ready = poll_fn(|cx| lock(&self.sender).poll_ready(cx));
        matches!(timeout(within, ready).await, Ok(Ok(())))
    }
}

impl<B: SendableBody> Release for Http1Connection<B> {
    fn ended(self: Arc<Self>, parts: ReleasedParts, complete: bool) {
        // The app may not have taken the last piece yet, but a close by the upstream must be noticed.
        self.received.resume();
        if !complete {
            // Before the drop of `parts`, which wakes hyper's task.
            self.received.cancel();
        }
        // After an incomplete response, or without its pool, the drop of `self` closes the connection.
        let Some(pool) = self.pool.upgrade().filter(|_| complete) else {
            return;
        };
        // An upstream that responded early may read the rest of the request as another one. The connection is then not
        // reused.
        let reusable = self.received.in_order();
        if reusable && self.is_ready() {
            pool.give_back(self);
        } else if !self.is_closed()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // The upstream may still read the rest of the request, so hyper sends it. `parts` keeps the permit
                // meanwhile.
                if self.ready(pool.wait_timeout).await && reusable {
                    pool.give_back(self);
                }
                drop(parts);
            });
        }
    }

    fn memory(&self) -> &Memory {
        self.charge.memory()
    }

    fn receive_state(&self) -> Option<&ReceiveState> {
        Some(&self.received)
    }
}
