//! The connections of one target.

mod line;
mod open;

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;

use self::line::Turn;
use self::open::Opened;
use super::idle::IdleCount;
use super::lease::Lease;
use super::ping::Complaints;
use super::{Limits, Pools, h1, h2};
use crate::dns::Priority;
use crate::error::ErrorKind;
use crate::memory::Memory;
use crate::upstream::clock::Moment;
use crate::upstream::failure::Failure;
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
    idle_count: Arc<IdleCount>,
    pub(in crate::upstream) memory: Memory,
    /// How long somebody waits for a place, and hyper may take to be done with an exchange.
    pub(super) patience: Duration,
    /// HTTP/1.1: places for connections in use.
    in_use: Arc<Semaphore>,
    /// HTTP/2: how often the upstream had too many PINGs.
    pub(super) complaints: Complaints,
    pools: Weak<Pools<B>>,
    /// Some request had [`Priority::High`], so every dial has it.
    high_priority: AtomicBool,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// Idle connections of both kinds, as [`IdleCount`] knows it.
    counted: usize,
    /// What is spoken; `None` until ALPN has decided for the first time.
    protocol: Option<Protocol>,
    idle: h1::Idle<B>,
    streams: h2::Streams<B>,
    dialing: bool,
    waiting: VecDeque<oneshot::Sender<Turn<B>>>,
}

/// The locked state; what has become idle or busy under it is counted at its end.
struct StateGuard<'a, B: RequestBody> {
    state: MutexGuard<'a, State<B>>,
    count: &'a IdleCount,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

// === impl Pool ===

impl<B: RequestBody> Pool<B> {
    pub(super) fn new(target: Target, address: Address, pools: &Arc<Pools<B>>) -> Self {
        Self {
            address,
            limits: pools.limits,
            idle_timeout: pools.idle_timeout,
            idle_count: Arc::clone(&pools.idle),
            memory: pools.memory.clone(),
            patience: pools.dialer.timeout,
            in_use: Arc::new(Semaphore::new(pools.limits.per_target)),
            complaints: Complaints::default(),
            pools: Arc::downgrade(pools),
            high_priority: AtomicBool::new(false),
            state: Mutex::new(State {
                protocol: match target.offer() {
                    Offer::Both => None,
                    Offer::Http1 => Some(Protocol::Http1),
                    Offer::Http2 => Some(Protocol::Http2),
                },
                counted: 0,
                idle: h1::Idle::new(),
                streams: h2::Streams::new(),
                dialing: false,
                waiting: VecDeque::new(),
            }),
            target,
        }
    }

    /// Raises the priority of the target's name, of a look-up that is queued already too.
    pub(in crate::upstream) fn raise(&self, priority: Priority, pools: &Pools<B>) {
        if priority == Priority::High
            && !self.high_priority.load(Ordering::Relaxed)
            && !self.high_priority.swap(true, Ordering::AcqRel)
        {
            pools.dialer.promote(&self.target.origin);
        }
    }

    fn priority(&self) -> Priority {
        if self.high_priority.load(Ordering::Acquire) {
            Priority::High
        } else {
            Priority::Normal
        }
    }

    /// A connection for one request; with `fresh`, one that is opened for it.
    pub(in crate::upstream) async fn checkout(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        match (!fresh).then(|| self.at_once()).flatten() {
            Some(lease) if !lease.napped => Ok(lease),
            // Boxed: a dial's state is large, and most requests need not carry it.
            found => Box::pin(self.wait(pools, fresh, found)).await,
        }
    }

    /// A connection that is there, or a stream of one.
    fn at_once(&self) -> Option<Lease<B>> {
        let mut state = self.state();
        match state.protocol? {
            Protocol::Http1 => {
                let permit = Arc::clone(&self.in_use).try_acquire_owned().ok()?;
                let (connection, napped) = state.idle.pop(self.idle_timeout)?;
                Some(Lease::http1(connection, permit, true, napped))
            }
            // Nobody overtakes those who wait.
            Protocol::Http2 if !state.waiting.is_empty() => None,
            Protocol::Http2 => state.streams.take(self.limits.streams, self.idle_timeout),
        }
    }

    async fn wait(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
        mut found: Option<Lease<B>>,
    ) -> Result<Lease<B>, Failure> {
        if fresh {
            return self.checkout_alone(pools, true).await;
        }
        loop {
            let lease = match found.take() {
                Some(lease) => lease,
                None => self.find(pools).await?,
            };
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

    /// An idle HTTP/1.1 connection, or a new one of whatever kind.
    async fn checkout_alone(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        let permit = self.place_in_use().await?;
        if !fresh && let Some((connection, napped)) = self.state().idle.pop(self.idle_timeout) {
            return Ok(Lease::http1(connection, permit, true, napped));
        }
        Ok(match self.open(pools).await? {
            Opened::Http1(connection) => {
                self.state().protocol = Some(Protocol::Http1);
                Lease::http1(connection, permit, false, false)
            }
            Opened::Http2(connection) => {
                let mut state = self.state();
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

    fn state(&self) -> StateGuard<'_, B> {
        StateGuard {
            state: lock(&self.state),
            count: &self.idle_count,
        }
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
        self.state().idle.push(connection, self.limits.idle);
        pools.trim_idle();
        pools.sweep_later();
    }

    /// An HTTP/2 stream has ended.
    pub(super) fn release(self: &Arc<Self>, connection: &Arc<h2::Connection<B>>) {
        let mut state = self.state();
        let idle = state.streams.release(connection);
        let waiting = !state.waiting.is_empty();
        drop(state);
        if waiting {
            self.serve(false);
        } else if idle && let Some(pools) = self.pools.upgrade() {
            if pools.is_crowded() {
                self.state().streams.close_idle();
            }
            pools.trim_idle();
            pools.sweep_later();
        }
    }

    /// Closes what has been idle for too long; true if something still is.
    pub(super) fn expire(&self) -> bool {
        let mut state = self.state();
        state.idle.expire(self.idle_timeout);
        state.streams.expire(self.idle_timeout);
        state.idle_len() > 0
    }

    /// When each of its idle connections became idle.
    pub(super) fn idle_moments(&self) -> Vec<Moment> {
        let state = self.state();
        state.idle.moments().chain(state.streams.idle()).collect()
    }

    /// Closes what became idle at this moment or before.
    pub(super) fn close_until(&self, moment: &Moment) {
        let mut state = self.state();
        state.idle.close_until(moment);
        state.streams.close_until(moment);
    }

    pub(super) fn close_idle(&self) {
        let mut state = self.state();
        state.idle.clear();
        state.streams.close_idle();
    }

    /// Nothing is open and nobody waits: it may be forgotten.
    pub(super) fn is_vacant(&self) -> bool {
        let state = self.state();
        state.idle.is_empty()
            && state.streams.is_empty()
            && !state.dialing
            && self.in_use.available_permits() == self.limits.per_target
    }
}

// === impl State ===

impl<B: RequestBody> State<B> {
    fn idle_len(&self) -> usize {
        self.idle.len() + self.streams.idle().count()
    }
}

// === impl StateGuard ===

impl<B: RequestBody> Deref for StateGuard<'_, B> {
    type Target = State<B>;

    fn deref(&self) -> &State<B> {
        &self.state
    }
}

impl<B: RequestBody> DerefMut for StateGuard<'_, B> {
    fn deref_mut(&mut self) -> &mut State<B> {
        &mut self.state
    }
}

impl<B: RequestBody> Drop for StateGuard<'_, B> {
    fn drop(&mut self) {
        let now = self.state.idle_len();
        if now != self.state.counted {
            self.count.changed(self.state.counted, now);
            self.state.counted = now;
        }
    }
}
