//! Open connections, kept for the next request: one [`Pool`] a target, all of them under one cap.

mod driver;
pub(super) mod h1;
pub(super) mod h2;
mod idle;
mod lease;
mod ping;
mod target;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use self::idle::IdleCount;
pub(super) use self::lease::{Hold, Lease, Way};
pub(super) use self::target::Pool;
use super::dial::Dialer;
use super::failure::Failure;
use super::lock;
use super::outgoing::RequestBody;
use super::target::{Address, Target};
use crate::config;
use crate::error::ErrorKind;
use crate::memory::Memory;

/// How often idle connections are looked through, at the most and at the least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(15));

/// Idle for this long, a connection is given the time to tell that it was closed, before it is used.
const NAP: Duration = Duration::from_millis(100);

/// Targets beyond which those without a connection are forgotten at once.
const TARGETS: usize = 256;

/// How many connections and streams there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections in all; over it, requests wait.
    pub connections: usize,
    /// HTTP/1.1 connections in use, to one target; over it, requests wait.
    pub per_target: usize,
    /// Idle HTTP/1.1 connections kept, to one target. Fewer than may be in use would have a busy target dial for ever:
    /// of a burst's connections only so many outlive it.
    pub idle: usize,
    /// Requests on one HTTP/2 connection, where the upstream allows no less.
    pub streams: usize,
}

/// The pools of all targets.
pub(super) struct Pools<B> {
    pub(super) dialer: Dialer,
    limits: Limits,
    idle_timeout: Duration,
    /// Idle connections of all targets, of both protocols.
    idle: Arc<IdleCount>,
    pub(super) memory: Memory,
    /// Places for open connections.
    places: Arc<Semaphore>,
    /// Requests that wait for one.
    crowd: AtomicUsize,
    targets: Mutex<HashMap<Target, Arc<Pool<B>>>>,
    sweeping: AtomicBool,
}

/// Counts one who waits.
struct Crowd<'a>(&'a AtomicUsize);

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_target: 1024,
            idle: 1024,
            streams: 100,
        }
    }
}

// === impl Pools ===

impl<B: RequestBody> Pools<B> {
    pub(super) fn new(
        dialer: Dialer,
        limits: Limits,
        config: &config::Upstream,
        memory: Memory,
    ) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            idle: Arc::new(IdleCount::new(config.max_idle)),
            memory,
            places: Arc::new(Semaphore::new(limits.connections)),
            limits,
            idle_timeout: config.idle_timeout,
            crowd: AtomicUsize::new(0),
            targets: Mutex::new(HashMap::new()),
            sweeping: AtomicBool::new(false),
        })
    }

    /// The pool of a target.
    pub(super) fn pool(self: &Arc<Self>, target: &Target) -> Result<Arc<Pool<B>>, Failure> {
        let mut targets = lock(&self.targets);
        if let Some(pool) = targets.get(target) {
            return Ok(Arc::clone(pool));
        }
        let proxy = self.dialer.proxy(&target.origin).filter(|_| target.forward);
        let address = Address::new(&target.origin, proxy.cloned()).ok_or_else(|| {
            Failure::new(
                ErrorKind::BadRequest,
                format!("{}: this cannot be written in a request", target.origin),
            )
        })?;
        if targets.len() >= TARGETS {
            forget_vacant(&mut targets, true);
        }
        let pool = Arc::new(Pool::new(target.clone(), address, self));
        targets.insert(target.clone(), Arc::clone(&pool));
        Ok(pool)
    }

    /// A place for one more connection. Where there is none, idle ones make room.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let places = Arc::clone(&self.places);
        if let Ok(permit) = Arc::clone(&places).try_acquire_owned() {
            return Ok(permit);
        }
        let _crowd = Crowd::new(&self.crowd);
        self.close_idle();
        match timeout(self.dialer.timeout, places.acquire_owned()).await {
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

    /// Somebody waits for a place, or there is no memory left: no connection should idle now.
    fn is_crowded(&self) -> bool {
        self.crowd.load(Ordering::Relaxed) > 0 || self.memory.is_over()
    }

    pub(super) fn close_idle(&self) {
        for pool in self.all() {
            pool.close_idle();
        }
    }

    /// Sees to it that idle connections are closed in time. No more than tidiness: their age is looked at again
    /// before they are used.
    fn sweep_later(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let pause = (self.idle_timeout / 4).clamp(SWEEP.0, SWEEP.1);
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
                // What became idle just before that has seen the flag still up.
                if !pools.sweep() || pools.sweeping.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Closes what has been idle for too long; true if something still is.
    fn sweep(&self) -> bool {
        // Every one of them, not only up to the first.
        let idle = self.all().iter().filter(|pool| pool.expire()).count() > 0;
        forget_vacant(&mut lock(&self.targets), false);
        idle
    }

    fn all(&self) -> Vec<Arc<Pool<B>>> {
        lock(&self.targets).values().cloned().collect()
    }
}

/// Drops the pools that nobody uses; those of upstreams that complained of PINGs only where there are too many.
fn forget_vacant<B: RequestBody>(targets: &mut HashMap<Target, Arc<Pool<B>>>, all: bool) {
    targets.retain(|_, pool| {
        Arc::strong_count(pool) > 1 || !pool.is_vacant() || (pool.complaints.any() && !all)
    });
}

// === impl Crowd ===

impl<'a> Crowd<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
