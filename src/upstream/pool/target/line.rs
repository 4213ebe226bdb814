//! Who waits for a stream, and the one dial that is under way for them.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::open::Opened;
use super::{Pool, Protocol, State};
use crate::error::ErrorKind;
use crate::upstream::failure::Failure;
use crate::upstream::outgoing::RequestBody;
use crate::upstream::pool::Pools;
use crate::upstream::pool::lease::Lease;

/// How a request is served that may share a connection.
enum Place<B> {
    /// Not at all: HTTP/1.1 is spoken.
    Alone,
    Served(Lease<B>),
    /// First in line: the dial is its to begin.
    First(oneshot::Receiver<Turn<B>>),
    Waiting(oneshot::Receiver<Turn<B>>),
}

/// What becomes of one who waited.
pub(super) enum Turn<B> {
    Stream(Lease<B>),
    /// It is HTTP/1.1: there is nothing to share.
    Alone,
    Failed(Failure),
}

/// The one dial for all who wait. Where it comes to no end, because it panicked or the runtime stops, they are let go.
struct Dialing<B: RequestBody>(Option<Arc<Pool<B>>>);

// === impl Pool ===

impl<B: RequestBody> Pool<B> {
    /// A stream for one request, in its turn; where HTTP/1.1 is spoken, a connection.
    pub(super) async fn find(self: &Arc<Self>, pools: &Arc<Pools<B>>) -> Result<Lease<B>, Failure> {
        loop {
            let turn = match self.queue() {
                Place::Alone => return self.checkout_alone(pools, false).await,
                Place::Served(lease) => return Ok(lease),
                Place::Waiting(turn) => turn,
                Place::First(turn) => {
                    self.dial(pools);
                    turn
                }
            };
            match turn.await {
                Ok(Turn::Stream(lease)) => return Ok(lease),
                Ok(Turn::Alone) => {}
                Ok(Turn::Failed(failure)) => return Err(failure),
                Err(_) => return Err(Failure::new(ErrorKind::Internal, "the dial was dropped")),
            }
        }
    }

    /// Takes a free stream, or a place in line; HTTP/1.1 knows neither.
    fn queue(&self) -> Place<B> {
        let mut state = self.state();
        if state.protocol == Some(Protocol::Http1) {
            return Place::Alone;
        }
        // Nobody overtakes those who wait.
        if state.waiting.is_empty()
            && let Some(lease) = state.streams.take(self.limits.streams, self.idle_timeout)
        {
            return Place::Served(lease);
        }
        let (served, turn) = oneshot::channel();
        state.waiting.push_back(served);
        if state.dialing {
            return Place::Waiting(turn);
        }
        state.dialing = true;
        Place::First(turn)
    }

    /// Dials for all who wait, in a task that outlives each of them.
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

    /// Puts what was dialled to use.
    fn dialled(self: &Arc<Self>, opened: Result<Opened<B>, Failure>) {
        let mut state = self.state();
        match opened {
            Ok(Opened::Http1(connection)) => {
                state.protocol = Some(Protocol::Http1);
                state.idle.push(connection, self.limits.idle);
            }
            Ok(Opened::Http2(connection)) => {
                state.protocol = Some(Protocol::Http2);
                // One who waits gets a stream of it, whatever has become of it since: else a peer that closes at once
                // would be dialled for ever.
                let waiting = state.next_waiting();
                state
                    .streams
                    .add(Arc::clone(&connection), usize::from(waiting.is_some()));
                drop(state);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(Turn::Stream(Lease::http2(connection, false)));
                }
            }
            Err(failure) => {
                for waiting in state.waiting.drain(..) {
                    let _ = waiting.send(Turn::Failed(failure.clone()));
                }
            }
        }
    }

    /// Serves those who wait with what there is, and dials for the others; `dialled` when the last dial is over.
    pub(super) fn serve(self: &Arc<Self>, dialled: bool) {
        let mut served = Vec::new();
        let mut state = self.state();
        state.dialing &= !dialled;
        if state.protocol == Some(Protocol::Http1) {
            for waiting in state.waiting.drain(..) {
                let _ = waiting.send(Turn::Alone);
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
        // A lease whose request was dropped meanwhile comes back by `release`, which takes the lock.
        for (waiting, lease) in served {
            let _ = waiting.send(Turn::Stream(lease));
        }
        if dial && let Some(pools) = self.pools.upgrade() {
            self.dial(&pools);
        }
    }
}

// === impl State ===

impl<B> State<B> {
    /// The first in line who still waits.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Turn<B>>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
        None
    }
}

// === impl Dialing ===

impl<B: RequestBody> Dialing<B> {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl<B: RequestBody> Drop for Dialing<B> {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            let mut state = pool.state();
            state.dialing = false;
            state.waiting.clear();
        }
    }
}
