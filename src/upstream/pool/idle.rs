//! The limit of idle connections to all upstreams.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Pools;
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::idle_since::IdleSince;

/// The additional part that is closed over the limit, because finding the oldest connections visits every target.
const SPARE: usize = 16;

/// Counts the idle connections of all targets.
#[derive(Debug)]
pub(super) struct IdleCount {
    count: AtomicUsize,
    most: usize,
}

// === impl IdleCount ===

impl IdleCount {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            most,
        }
    }

    /// Records that a target had `before` idle connections and now has `now`.
    pub(super) fn changed(&self, before: usize, now: usize) {
        if now >= before {
            self.count.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.count.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.most
    }
}

// === impl Pools ===

impl<B: SendableBody> Pools<B> {
    /// Closes the least recently used idle connections over `--max-idle-connections`.
    pub(super) fn trim_idle(&self) {
        if self.idle.is_over() {
            let most = self.idle.most;
            self.close_oldest(|idle| match idle.saturating_sub(most) {
                0 => 0,
                over => over + most / SPARE,
            });
        }
    }

    /// Closes the least recently used half of the idle connections, over `--max-memory`.
    pub(super) fn relieve(&self) {
        if self.memory.is_over() {
            self.close_oldest(|idle| idle.div_ceil(2));
        }
    }

    /// Closes the least recently used idle connections. `count` maps their number to how many to close.
    fn close_oldest(&self, count: impl FnOnce(usize) -> usize) {
        let pools = self.all();
        let mut times: Vec<IdleSince> = pools.iter().flat_map(|pool| pool.idle_times()).collect();
        let Some(last) = count(times.len())
            .checked_sub(1)
            .filter(|last| *last < times.len())
        else {
            return;
        };
        let (_, last, _) = times.select_nth_unstable_by(last, IdleSince::by_age);
        for pool in pools {
            pool.close_until(last);
        }
    }
}
