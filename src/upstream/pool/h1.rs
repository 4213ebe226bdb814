//! HTTP/1.1 connections. Each carries one request at a time. The pool keeps idle connections in a stack, and reuses one
//! only if its last exchange ended cleanly.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::IDLE_CHECK_AFTER;
use super::lease::{Release, ReleasedParts};
use super::target_pool::Pool;
use crate::lock::lock;
use crate::memory::{Charge, Memory, UPSTREAM_CONNECTION};
use crate::upstream::cancellable_body::{CancellableBody, SendableBody};
use crate::upstream::failure::{Failure, UpstreamPeer};
use crate::upstream::idle_since::IdleSince;
use crate::upstream::interim::InterimLimiter;
use crate::upstream::io::UpstreamIo;
use crate::upstream::receive_state::ReceiveState;

/// The maximum number of fields in a response's head. hyper's own limit, 100, is too small for some upstreams.
const MAX_HEADERS: usize = 256;

/// The maximum number of bytes of a response's head, and of the bytes that are read or written ahead.
const MAX_BUFFER: usize = 512 * 1024;

/// An open connection.
pub(in crate::upstream) struct Http1Connection<B> {
    sender: Mutex<SendRequest<CancellableBody<B>>>,
    pool: Weak<Pool<B>>,
    /// The traffic on the socket since the last request began.
    pub(in crate::upstream) received: ReceiveState,
    pub(in crate::upstream) peer: UpstreamPeer,
    /// Counts the connection against `--max-memory`.
    charge: Charge,
}

/// Idle connections. The most recently used is on top, because it is the most likely to be open. Unused ones sink and
/// expire.
pub(super) struct IdleStack<B>(Vec<(Arc<Http1Connection<B>>, IdleSince)>);

// === impl Http1Connection ===

impl<B: SendableBody> Http1Connection<B> {
    /// Starts HTTP/1.1 on a socket. Spawns the task that drives the connection.
    pub(super) async fn open(
        io: UpstreamIo,
        peer: UpstreamPeer,
        pool: Weak<Pool<B>>,
        memory: &Memory,
    ) -> Result<Arc<Self>, Failure> {
        let charge = memory.charge(UPSTREAM_CONNECTION);
        let received = io.receive_state();
        let (sender, connection) = http1::Builder::new()
            // Some servers compare field names case-sensitively, so the app's spelling is kept.
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io.limiting(InterimLimiter::http1())))
            .await
            .map_err(|error| Failure::exchange(&peer, &error))?;
        tokio::spawn(async move {
            // The error also reaches the request that waits for a response; an idle connection has none.
            let _ = connection.with_upgrades().await;
        });
        Ok(Arc::new(Self {
            sender: Mutex::new(sender),
            pool,
            received,
            peer,
            charge,
        }))
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

    fn is_closed(&self) -> bool {
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

// === impl IdleStack ===

impl<B: SendableBody> IdleStack<B> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps a connection, unless `max_idle` are already kept.
    pub(super) fn push(&mut self, connection: Arc<Http1Connection<B>>, max_idle: usize) {
        if self.0.len() < max_idle {
            self.0.push((connection, IdleSince::now()));
        }
    }

    /// Returns the most recently used connection that is open and idle for less than `max_age`. The flag is set if it
    /// must be checked for a close by the upstream.
    pub(super) fn pop(&mut self, max_age: Duration) -> Option<(Arc<Http1Connection<B>>, bool)> {
        while let Some((connection, since)) = self.0.pop() {
            let age = since.age();
            if age >= max_age {
                // All connections below are idle for longer.
                self.0.clear();
            } else if connection.is_ready() {
                return Some((connection, age >= IDLE_CHECK_AFTER));
            }
        }
        None
    }

    /// Drops connections that are closed, or idle for at least `age`.
    pub(super) fn expire(&mut self, age: Duration) {
        self.0
            .retain(|(connection, since)| since.age() < age && !connection.is_closed());
    }

    /// Closes connections that became idle at this time or before, for the limit of idle connections to all upstreams.
    pub(super) fn close_until(&mut self, time: &IdleSince) {
        self.0.retain(|(_, since)| !since.is_until(time));
    }

    /// Returns the time at which each connection became idle.
    pub(super) fn times(&self) -> impl Iterator<Item = IdleSince> {
        self.0.iter().map(|(_, since)| *since)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
