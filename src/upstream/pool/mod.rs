//! Open connections for reuse: one [`Pool`] for each target and worker, all under one limit.

mod driver;
pub(super) mod h1;
pub(super) mod h2;
mod idle;
mod idle_stack;
mod lease;
mod open;
mod parked;
mod ping;
mod target_pool;
mod wait_queue;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use self::idle::IdleCount;
pub(super) use self::lease::{ConnectionGuard, Lease, LeasedConnection};
pub(super) use self::target_pool::Pool;
use super::cancellable_body::SendableBody;
use super::dial::Dialer;
use super::failure::Failure;
use super::target::{RequestTarget, Target};
use crate::config;
use crate::error::ErrorKind;
use crate::lock::lock;
use crate::memory::Memory;
use crate::workers::PerWorker;

/// The shortest time between two sweeps of idle connections.
const SWEEP: Duration = Duration::from_millis(10);

/// A connection that was idle for longer is checked for a close before it is used.
const IDLE_CHECK_AFTER: Duration = Duration::from_millis(100);

/// The number of a worker's targets beyond which pools without a connection are dropped at once.
const TARGETS: usize = 256;

/// The limits of connections and streams.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// All open connections. At the limit, requests wait.
    pub connections: usize,
    /// HTTP/1.1 connections of one worker in use to one target. At the limit, requests wait.
    pub per_target: usize,
    /// Idle HTTP/1.1 connections of one worker to one target. A lower limit than `per_target` would make a busy target dial
    /// repeatedly, because only this number of a burst's connections is kept.
    pub idle: usize,
    /// Requests on one HTTP/2 connection, unless the upstream permits fewer.
    pub streams: usize,
    /// The time after which an idle HTTP/1.1 connection gives its buffers back.
    pub park_after: Duration,
}

/// The pools of all targets.
pub(super) struct Pools<B> {
    pub(super) dialer: Dialer,
    limits: PoolLimits,
    idle_timeout: Duration,
    /// The count of idle connections of all targets and both protocols.
    idle: Arc<IdleCount>,
    pub(super) memory: Memory,
    /// The permits of open connections.
    permits: Arc<Semaphore>,
    /// The number of requests that wait for a permit.
    waiters: AtomicUsize,
    /// Each worker has its own pools, so that a connection and its requests are on the same core.
    targets: PerWorker<Mutex<Targets<B>>>,
    sweeping: AtomicBool,
}

type Targets<B> = HashMap<Target, Arc<Pool<B>>>;

/// Counts a waiting request until it is dropped.
struct WaiterGuard<'a>(&'a AtomicUsize);

// === impl PoolLimits ===

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_target: 1024,
            idle: 1024,
            streams: 100,
            park_after: Duration::from_secs(5),
        }
    }
}

// === impl Pools ===

impl<B: SendableBody> Pools<B> {
    pub(super) fn new(
        dialer: Dialer,
        limits: PoolLimits,
        config: &config::UpstreamConfig,
        memory: Memory,
    ) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            idle: Arc::new(IdleCount::new(config.max_idle)),
            memory,
            permits: Arc::new(Semaphore::new(limits.connections)),
            limits,
            idle_timeout: config.idle_timeout,
            waiters: AtomicUsize::new(0),
            targets: PerWorker::new(),
            sweeping: AtomicBool::new(false),
        })
    }

    /// Returns this worker's pool of a target.
    pub(super) fn pool(self: &Arc<Self>, target: &Target) -> Result<Arc<Pool<B>>, Failure> {
        let mut targets = lock(self.targets.current());
        if let Some(pool) = targets.get(target) {
            return Ok(Arc::clone(pool));
        }
        let proxy = self
            .dialer
            .proxy(&target.origin)
            .filter(|_| target.proxy_may_read);
        let address = RequestTarget::new(&target.origin, proxy.cloned()).ok_or_else(|| {
            Failure::new(
                ErrorKind::BadRequest,
                format!(
                    "{}: this host cannot be written in a request",
                    target.origin
                ),
            )
        })?;
        if targets.len() >= TARGETS {
            forget_vacant(&mut targets, true);
        }
        let pool = Arc::new(Pool::new(target.clone(), address, self));
        targets.insert(target.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    /// Returns a permit for a new connection. If none is free, closes idle connections.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permits = Arc::clone(&self.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiter = WaiterGuard::new(&self.waiters);
        self.close_idle();
        match timeout(self.dialer.timeout, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::new(
                ErrorKind::LimitReached,
                format!(
                    "all {} upstream connections are in use",
                    self.limits.connections
                ),
            )),
        }
    }

    /// Returns whether connections must not idle: requests wait for a permit, or the memory budget is used up.
    fn is_over_idle_limit(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0 || self.memory.is_over()
    }

    pub(super) fn close_idle(&self) {
        for pool in self.all() {
            pool.close_idle();
        }
    }

    /// Starts the task that parks and closes idle connections. The task only releases resources, because the age of a
    /// connection is checked again before use.
    fn sweep_later(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let pause = (self.idle_timeout / 4)
            .min(self.limits.park_after)
            .max(SWEEP);
        let pools = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                sleep(pause).await;
                let Some(pools) = pools.upgrade() else {
                    return;
                };
                if pools.sweep() {
                    continue;
                }
                pools.sweeping.store(false, Ordering::Release);
                // A connection that became idle just before has seen the flag.
                if !pools.sweep() || pools.sweeping.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Parks idle connections, and closes those past the idle timeout. Returns whether idle ones remain.
    fn sweep(&self) -> bool {
        // `any` would stop at the first pool.
        let idle = self.all().iter().filter(|pool| pool.expire()).count() > 0;
        for targets in self.targets.all() {
            forget_vacant(&mut lock(targets), false);
        }
        idle
    }

    fn all(&self) -> Vec<Arc<Pool<B>>> {
        let all = self.targets.all();
        all.flat_map(|targets| lock(targets).values().cloned().collect::<Vec<_>>())
            .collect()
    }
}

/// Drops unused pools. With `all`, also those of upstreams that complained of PINGs.
fn forget_vacant<B: SendableBody>(targets: &mut Targets<B>, all: bool) {
    targets.retain(|_, pool| {
        Arc::strong_count(pool) > 1 || !pool.is_vacant() || (pool.complaints.any() && !all)
    });
}

// === impl WaiterGuard ===

impl<'a> WaiterGuard<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
