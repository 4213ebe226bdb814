//! The queue of requests that wait for a stream, and their common dial.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Pools;
use super::lease::Lease;
use super::open::PooledConnection;
use super::target_pool::{Pool, PoolState, UpstreamProtocol};
use crate::error::ErrorKind;
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::failure::Failure;

/// The result of a request for a stream.
enum Checkout<B> {
    /// The protocol is HTTP/1.1, which has no streams.
    Alone,
    Ready(Lease<B>),
    /// The caller must start the dial.
    First(oneshot::Receiver<WaitResult<B>>),
    Waiting(oneshot::Receiver<WaitResult<B>>),
}

/// The result for a waiting request.
pub(super) enum WaitResult<B> {
    Stream(Lease<B>),
    /// The protocol is HTTP/1.1, which has no streams.
    Alone,
    Failed(Failure),
}

/// The dial for all waiting requests. If it is dropped early, by a panic or the end of the runtime, they fail.
struct Dialing<B: SendableBody>(Option<Arc<Pool<B>>>);

// === impl Pool ===

impl<B: SendableBody> Pool<B> {
    /// Returns a stream in the order of requests, or a connection if the protocol is HTTP/1.1.
    pub(super) async fn find(self: &Arc<Self>, pools: &Arc<Pools<B>>) -> Result<Lease<B>, Failure> {
        loop {
            let receiver = match self.queue() {
                Checkout::Alone => return self.checkout_alone(pools, false).await,
                Checkout::Ready(lease) => return Ok(lease),
                Checkout::Waiting(receiver) => receiver,
                Checkout::First(receiver) => {
                    self.dial(pools);
                    receiver
                }
            };
            match receiver.await {
                Ok(WaitResult::Stream(lease)) => return Ok(lease),
                Ok(WaitResult::Alone) => {}
                Ok(WaitResult::Failed(failure)) => return Err(failure),
                Err(_) => return Err(Failure::new(ErrorKind::Internal, "the dial was dropped")),
            }
        }
    }

    /// Takes a free stream, or joins the queue.
    fn queue(&self) -> Checkout<B> {
        let mut state = self.state();
        if state.protocol == Some(UpstreamProtocol::Http1) {
            return Checkout::Alone;
        }
        // Requests are served in order.
        if state.waiting.is_empty()
            && let Some(lease) = state.streams.take(self.limits.streams, self.idle_timeout)
        {
            return Checkout::Ready(lease);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        if state.dialing {
            return Checkout::Waiting(receiver);
        }
        state.dialing = true;
        Checkout::First(receiver)
    }

    /// Dials for all waiting requests, in a task that does not depend on any of them.
    fn dial(self: &Arc<Self>, pools: &Arc<Pools<B>>) {
        let pool = Arc::clone(self);
        let pools = Arc::clone(pools);
        let dialing = Dialing(Some(Arc::clone(self)));
        tokio::spawn(async move {
            let opened = pool.open(&pools).await;
            pool.dialled(opened);
            dialing.ended();
            pool.serve(true);
            pools.trim_idle();
            pools.sweep_later();
        });
    }

    /// Adds a dialled connection to the pool.
    fn dialled(self: &Arc<Self>, opened: Result<PooledConnection<B>, Failure>) {
        let mut state = self.state();
        match opened {
            Ok(PooledConnection::Http1(connection)) => {
                state.protocol = Some(UpstreamProtocol::Http1);
                state.idle.push(connection, self.limits.idle);
            }
            Ok(PooledConnection::Http2(connection)) => {
                state.protocol = Some(UpstreamProtocol::Http2);
                // The first waiting request gets a stream even if the connection has closed. Otherwise a peer that
                // closes at once would be dialled without end.
                let waiting = state.next_waiting();
                state
                    .streams
                    .add(Arc::clone(&connection), usize::from(waiting.is_some()));
                drop(state);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(WaitResult::Stream(Lease::http2(connection, false)));
                }
            }
            Err(failure) => {
                for waiting in state.waiting.drain(..) {
                    let _ = waiting.send(WaitResult::Failed(failure.clone()));
                }
            }
        }
    }

    /// Gives free streams to waiting requests, and dials for the others. `dialled` says that the last dial has ended.
    pub(super) fn serve(self: &Arc<Self>, dialled: bool) {
        let mut served = Vec::new();
        let mut state = self.state();
        state.dialing &= !dialled;
        if state.protocol == Some(UpstreamProtocol::Http1) {
            for waiting in state.waiting.drain(..) {
                let _ = waiting.send(WaitResult::Alone);
            }
        }
        while let Some(waiting) = state.next_waiting() {
            let Some(lease) = state.streams.take(self.limits.streams, self.idle_timeout) else {
                state.waiting.push_front(waiting);
                break;
            };
            served.push((waiting, lease));
        }
        let dial = !state.waiting.is_empty() && !state.dialing;
        state.dialing |= dial;
        drop(state);
        // The lease of a dropped request returns by `release`, which takes the lock.
        for (waiting, lease) in served {
            let _ = waiting.send(WaitResult::Stream(lease));
        }
        if dial && let Some(pools) = self.pools.upgrade() {
            self.dial(&pools);
        }
    }
}

// === impl PoolState ===

impl<B> PoolState<B> {
    /// Removes and returns the first request that still waits.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<WaitResult<B>>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
        None
    }
}

// === impl Dialing ===

impl<B: SendableBody> Dialing<B> {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl<B: SendableBody> Drop for Dialing<B> {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            let mut state = pool.state();
            state.dialing = false;
            state.waiting.clear();
        }
    }
}
