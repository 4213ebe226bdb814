//! The connections of one worker to one target.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::idle::IdleCount;
use super::idle_stack::{IdleConnection, IdleStack};
use super::lease::Lease;
use super::open::PooledConnection;
use super::ping::Complaints;
use super::wait_queue::WaitResult;
use super::{PoolLimits, Pools, h1, h2};
use crate::dns::Priority;
use crate::error::ErrorKind;
use crate::lock::lock;
use crate::memory::Memory;
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::failure::Failure;
use crate::upstream::idle_since::IdleSince;
use crate::upstream::target::{RequestTarget, Target};
use crate::upstream::tls::AlpnOffer;

/// The connections of one worker to one target, and the requests that wait for one.
///
/// HTTP/1.1: a request that finds no idle connection dials its own. HTTP/2, and before ALPN has decided: one dial at a
/// time runs in its own task, and requests without a free stream wait for it. Requests wait only during a dial, and
/// each dial serves at least one of them.
pub(in crate::upstream) struct Pool<B> {
    pub(super) target: Target,
    pub(in crate::upstream) address: RequestTarget,
    pub(super) limits: PoolLimits,
    pub(super) idle_timeout: Duration,
    idle_count: Arc<IdleCount>,
    pub(in crate::upstream) memory: Memory,
    /// The longest wait for a permit, and for hyper to send the rest of a request.
    pub(super) wait_timeout: Duration,
    /// HTTP/1.1: permits of connections in use.
    in_use: Arc<Semaphore>,
    /// HTTP/2: the number of times that the upstream complained of too many PINGs.
    pub(super) complaints: Complaints,
    pub(super) pools: Weak<Pools<B>>,
    /// A request had [`Priority::High`]: all dials have it from then on.
    high_priority: AtomicBool,
    state: Mutex<PoolState<B>>,
}

pub(super) struct PoolState<B> {
    /// Idle connections of both protocols, as counted in [`IdleCount`].
    pub(super) counted: usize,
    /// `None` until ALPN has decided for the first time.
    pub(super) protocol: Option<UpstreamProtocol>,
    pub(super) idle: IdleStack<B>,
    pub(super) streams: h2::Http2Connections<B>,
    pub(super) dialing: bool,
    pub(super) waiting: VecDeque<oneshot::Sender<WaitResult<B>>>,
}

/// The locked state. Its drop updates the count of idle connections.
pub(super) struct StateGuard<'a, B: SendableBody> {
    state: MutexGuard<'a, PoolState<B>>,
    count: &'a IdleCount,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamProtocol {
    Http1,
    Http2,
}

// === impl Pool ===

impl<B: SendableBody> Pool<B> {
    pub(super) fn new(target: Target, address: RequestTarget, pools: &Arc<Pools<B>>) -> Self {
        Self {
            address,
            limits: pools.limits,
            idle_timeout: pools.idle_timeout,
            idle_count: Arc::clone(&pools.idle),
            memory: pools.memory.clone(),
            wait_timeout: pools.dialer.timeout,
            in_use: Arc::new(Semaphore::new(pools.limits.per_target)),
            complaints: Complaints::default(),
            pools: Arc::downgrade(pools),
            high_priority: AtomicBool::new(false),
            state: Mutex::new(PoolState {
                protocol: match target.alpn_offer() {
                    AlpnOffer::Both => None,
                    AlpnOffer::Http1 => Some(UpstreamProtocol::Http1),
                    AlpnOffer::Http2 => Some(UpstreamProtocol::Http2),
                },
                counted: 0,
                idle: IdleStack::new(),
                streams: h2::Http2Connections::new(),
                dialing: false,
                waiting: VecDeque::new(),
            }),
            target,
        }
    }

    /// Raises the priority of the target's name lookups, queued ones included.
    pub(in crate::upstream) fn raise(&self, priority: Priority, pools: &Pools<B>) {
        if priority == Priority::High
            && !self.high_priority.load(Ordering::Relaxed)
            && !self.high_priority.swap(true, Ordering::AcqRel)
        {
            pools.dialer.promote(&self.target.origin);
        }
    }

    pub(super) fn priority(&self) -> Priority {
        if self.high_priority.load(Ordering::Acquire) {
            Priority::High
        } else {
            Priority::Normal
        }
    }

    /// Returns a connection for one request. With `fresh`, it is a new one.
    pub(in crate::upstream) async fn checkout(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        match (!fresh).then(|| self.at_once()).flatten() {
            Some(lease) if !lease.needs_check => Ok(lease),
            // Boxed: the state of a dial is large, and most requests need none.
            found => Box::pin(self.wait(pools, fresh, found)).await,
        }
    }

    /// Returns an idle connection or a free stream.
    fn at_once(&self) -> Option<Lease<B>> {
        let mut state = self.state();
        match state.protocol? {
            UpstreamProtocol::Http1 => {
                let permit = Arc::clone(&self.in_use).try_acquire_owned().ok()?;
                let (connection, needs_check) = state.idle.pop_open(self.idle_timeout)?;
                Some(Lease::http1(connection, permit, true, needs_check))
            }
            // Requests are served in order.
            UpstreamProtocol::Http2 if !state.waiting.is_empty() => None,
            UpstreamProtocol::Http2 => state.streams.take(self.limits.streams, self.idle_timeout),
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
            if lease.needs_check {
                // An instance without CPU may not have read an earlier close yet: lets the connection's task run.
                yield_now().await;
                if !lease.is_open() {
                    continue;
                }
            }
            return Ok(lease);
        }
    }

    /// Returns an idle HTTP/1.1 connection, or a new one of either protocol.
    pub(super) async fn checkout_alone(
        self: &Arc<Self>,
        pools: &Arc<Pools<B>>,
        fresh: bool,
    ) -> Result<Lease<B>, Failure> {
        let permit = self.in_use_permit().await?;
        if !fresh && let Some((connection, needs_check)) = self.idle_connection(pools).await {
            return Ok(Lease::http1(connection, permit, true, needs_check));
        }
        Ok(match self.open(pools).await? {
            PooledConnection::Http1(connection) => {
                self.state().protocol = Some(UpstreamProtocol::Http1);
                Lease::http1(connection, permit, false, false)
            }
            PooledConnection::Http2(connection) => {
                let mut state = self.state();
                state.protocol = Some(UpstreamProtocol::Http2);
                state.streams.add(Arc::clone(&connection), 1);
                Lease::http2(connection, false)
            }
        })
    }

    /// Returns an idle HTTP/1.1 connection. The flag is set if it must be checked for a close by the upstream.
    async fn idle_connection(
        &self,
        pools: &Pools<B>,
    ) -> Option<(Arc<h1::Http1Connection<B>>, bool)> {
        let pop = || self.state().idle.pop(self.idle_timeout);
        while let Some((found, needs_check)) = pop() {
            match found {
                IdleConnection::Open(connection) => return Some((connection, needs_check)),
                IdleConnection::Parked(parked) => {
                    if let Some(connection) = parked.wake().await {
                        // It counts more than a parked one.
                        pools.relieve();
                        return Some((connection, true));
                    }
                }
            }
        }
        None
    }

    async fn in_use_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.in_use).acquire_owned();
        match timeout(self.wait_timeout, permit).await {
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

    pub(super) fn state(&self) -> StateGuard<'_, B> {
        StateGuard {
            state: lock(&self.state),
            count: &self.idle_count,
        }
    }

    /// Takes back an HTTP/1.1 connection.
    pub(super) fn give_back(&self, connection: Arc<h1::Http1Connection<B>>) {
        let Some(pools) = self.pools.upgrade() else {
            return;
        };
        // A request waits for a permit, perhaps for another target: the connection is closed.
        if pools.is_over_idle_limit() {
            return;
        }
        self.state().idle.push(connection, self.limits.idle);
        pools.trim_idle();
        pools.sweep_later();
    }

    /// Takes back an HTTP/2 stream.
    pub(super) fn release(self: &Arc<Self>, connection: &Arc<h2::Http2Connection<B>>) {
        let mut state = self.state();
        let idle = state.streams.release(connection);
        let waiting = !state.waiting.is_empty();
        drop(state);
        if waiting {
            self.serve(false);
        } else if idle && let Some(pools) = self.pools.upgrade() {
            if pools.is_over_idle_limit() {
                self.state().streams.close_idle();
            }
            pools.trim_idle();
            pools.sweep_later();
        }
    }

    /// Parks idle connections of HTTP/1.1, and closes those past the idle timeout. Returns whether idle ones remain.
    pub(super) fn expire(&self) -> bool {
        let mut state = self.state();
        state.idle.expire(self.limits.park_after, self.idle_timeout);
        state.streams.expire(self.idle_timeout);
        state.idle_len() > 0
    }

    /// Returns when each idle connection became idle.
    pub(super) fn idle_times(&self) -> Vec<IdleSince> {
        let state = self.state();
        state.idle.times().chain(state.streams.idle()).collect()
    }

    /// Closes connections that became idle at this moment or before.
    pub(super) fn close_until(&self, time: &IdleSince) {
        let mut state = self.state();
        state.idle.close_until(time);
        state.streams.close_until(time);
    }

    pub(super) fn close_idle(&self) {
        let mut state = self.state();
        state.idle.clear();
        state.streams.close_idle();
    }

    /// Returns whether it has neither connections nor waiting requests.
    pub(super) fn is_vacant(&self) -> bool {
        let state = self.state();
        state.idle.is_empty()
            && state.streams.is_empty()
            && !state.dialing
            && self.in_use.available_permits() == self.limits.per_target
    }
}

// === impl PoolState ===

impl<B: SendableBody> PoolState<B> {
    fn idle_len(&self) -> usize {
        self.idle.len() + self.streams.idle().count()
    }
}

// === impl StateGuard ===

impl<B: SendableBody> Deref for StateGuard<'_, B> {
    type Target = PoolState<B>;

    fn deref(&self) -> &PoolState<B> {
        &self.state
    }
}

impl<B: SendableBody> DerefMut for StateGuard<'_, B> {
    fn deref_mut(&mut self) -> &mut PoolState<B> {
        &mut self.state
    }
}

impl<B: SendableBody> Drop for StateGuard<'_, B> {
    fn drop(&mut self) {
        let now = self.state.idle_len();
        if now != self.state.counted {
            self.count.changed(self.state.counted, now);
            self.state.counted = now;
        }
    }
}
