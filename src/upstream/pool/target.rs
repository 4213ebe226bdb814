//! The connections of one target.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::lease::Lease;
use super::{Limits, NAP, Pools, h1, h2};
use crate::error::ErrorKind;
use crate::upstream::dial::Dialled;
use crate::upstream::failure::Failure;
use crate::upstream::io::{Io, Open};
use crate::upstream::lock;
use crate::upstream::outgoing::RequestBody;
use crate::upstream::target::{Address, Target};
use crate::upstream::tls::Offer;

/// The connections of one target, and who waits for one.
///
/// HTTP/1.1: every request that finds no idle connection dials its own. HTTP/2, and as long as ALPN has not decided:
/// one dial at a time, in a task of its own, and whoever finds no free stream waits in line for it. So somebody waits
/// only while a dial is under way, and every dial serves at least one who waits.
pub(in crate::upstream) struct Pool<B> {
    target: Target,
    pub(in crate::upstream) address: Address,
    limits: Limits,
    idle_timeout: Duration,
    /// How long somebody waits for a place, and hyper may take to be done with an exchange.
    pub(super) patience: Duration,
    /// HTTP/1.1: places for connections in use.
    in_use: Arc<Semaphore>,
    pools: Weak<Pools<B>>,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// What is spoken; `None` until ALPN has decided for the first time.
    protocol: Option<Protocol>,
    idle: h1::Idle<B>,
    streams: h2::Streams<B>,
    dialing: bool,
    waiting: VecDeque<oneshot::Sender<Turn<B>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

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
enum Turn<B> {
    Stream(Lease<B>),
    /// It is HTTP/1.1: there is nothing to share.
    Alone,
    Failed(Failure),
}

enum Opened<B> {
    Http1(Arc<h1::Connection<B>>),
    Http2(Arc<h2::Connection<B>>),
}

/// The one dial for all who wait. Where it comes to no end, because it panicked or the runtime stops, they are let go.
struct Dialing<B: RequestBody>(Option<Arc<Pool<B>>>);

// === impl Pool ===

impl<B: RequestBody> Pool<B> {
    pub(super) fn new(target: Target, address: Address, pools: &Arc<Pools<B>>) -> Self {
        Self {
            address,
            limits: pools.limits,
            idle_timeout: pools.idle_timeout,
            patience: pools.dialer.timeout,
            in_use: Arc::new(Semaphore::new(pools.limits.per_target)),
            pools: Arc::downgrade(pools),
            state: Mutex::new(State {
                protocol: match target.offer() {
                    Offer::Both => None,
                    Offer::Http1 => Some(Protocol::Http1),
                    Offer::Http2 => Some(Protocol::Http2),
                },
                idle: h1::Idle::new(),
                streams: h2::Streams::new(),
                dialing: false,
                waiting: VecDeque::new(),
            }),
            target,
        }
    }

    /// A connection for one request; with `fresh`, one that is opened for it.
    pub(in crate::upstream) async fn checkout(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        if fresh {
            return self.checkout_alone(pools, true).await;
        }
        loop {
            let lease = self.find(pools).await?;
            if lease.napped {
                // Where this instance had no CPU, a close that came long ago is read only now, and not before us.
                yield_now().await;
                if !lease.is_open() {
                    continue;
                }
            }
            return Ok(lease);
        }
    }

    async fn find(self: &Arc<Self>, pools: &Arc<Pools<B>>) -> Result<Lease<B>, Failure> {
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
        let mut state = lock(&self.state);
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

    /// An idle HTTP/1.1 connection, or a new one of whatever kind.
    async fn checkout_alone(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        let permit = self.place_in_use().await?;
        if !fresh && let Some((connection, since)) = lock(&self.state).idle.pop(self.idle_timeout) {
            return Ok(Lease::http1(
                connection,
                permit,
                true,
                since.is_older_than(NAP),
            ));
        }
        Ok(match self.open(pools).await? {
            Opened::Http1(connection) => {
                lock(&self.state).protocol = Some(Protocol::Http1);
                Lease::http1(connection, permit, false, false)
            }
            Opened::Http2(connection) => {
                let mut state = lock(&self.state);
                state.protocol = Some(Protocol::Http2);
                state.streams.add(Arc::clone(&connection), 1);
                Lease::http2(connection, false)
            }
        })
    }

    async fn place_in_use(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.in_use).acquire_owned();
        match timeout(self.patience, place).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::new(
                ErrorKind::LimitReached,
                format!(
                    "{}: all {} connections to it are in use",
                    self.target.origin, self.limits.per_target
                ),
            )),
        }
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
            pools.sweep_later();
        });
    }

    /// Puts what was dialled to use.
    fn dialled(self: &Arc<Self>, opened: Result<Opened<B>, Failure>) {
        let mut state = lock(&self.state);
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
    fn serve(self: &Arc<Self>, dialled: bool) {
        let mut served = Vec::new();
        let mut state = lock(&self.state);
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

    /// A connection, with its place under the global cap and spoken to as ALPN says.
    async fn open(self: &Arc<Self>, pools: &Pools<B>) -> Result<Opened<B>, Failure> {
        let permit = pools.place().await?;
        let open = Open::new(permit, &pools.dialer.metrics);
        let opened = self.establish(pools, open).await;
        pools.dialer.count(&opened);
        opened
    }

    async fn establish(
        self: &Arc<Self>,
        pools: &Pools<B>,
        open: Open,
    ) -> Result<Opened<B>, Failure> {
        let Dialled {
            stream,
            http2,
            place,
        } = pools
            .dialer
            .dial(&self.target.origin, self.target.offer())
            .await?;
        let io = Io::new(stream, open);
        let pool = Arc::downgrade(self);
        Ok(if http2 {
            let within = pools.dialer.timeout;
            Opened::Http2(h2::Connection::open(io, place, pool, within).await?)
        } else {
            Opened::Http1(h1::Connection::open(io, place, pool).await?)
        })
    }

    /// An HTTP/1.1 connection is free again.
    pub(super) fn give_back(&self, connection: Arc<h1::Connection<B>>) {
        let Some(pools) = self.pools.upgrade() else {
            return;
        };
        // Somebody waits for a place, perhaps for another target.
        if pools.is_crowded() {
            return;
        }
        lock(&self.state).idle.push(connection, self.limits.idle);
        pools.sweep_later();
    }

    /// An HTTP/2 stream has ended.
    pub(super) fn release(self: &Arc<Self>, connection: &Arc<h2::Connection<B>>) {
        let mut state = lock(&self.state);
        let idle = state.streams.release(connection);
        let waiting = !state.waiting.is_empty();
        drop(state);
        if waiting {
            self.serve(false);
        } else if idle && let Some(pools) = self.pools.upgrade() {
            if pools.is_crowded() {
                lock(&self.state).streams.close_idle();
            }
            pools.sweep_later();
        }
    }

    /// Closes what has been idle for too long; true if something still is.
    pub(super) fn expire(&self) -> bool {
        let mut state = lock(&self.state);
        state.idle.expire(self.idle_timeout);
        state.streams.expire(self.idle_timeout);
        !state.idle.is_empty() || state.streams.has_idle()
    }

    pub(super) fn close_idle(&self) {
        let mut state = lock(&self.state);
        state.idle.clear();
        state.streams.close_idle();
    }

    /// Nothing is open and nobody waits: it may be forgotten.
    pub(super) fn is_vacant(&self) -> bool {
        let state = lock(&self.state);
        state.idle.is_empty()
            && state.streams.is_empty()
            && !state.dialing
            && self.in_use.available_permits() == self.limits.per_target
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
            let mut state = lock(&pool.state);
            state.dialing = false;
            state.waiting.clear();
        }
    }
}
