//! The cap on idle connections to all upstreams together.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Pools;
use crate::upstream::cancellable_body::RequestBody;
use crate::upstream::clock::Moment;

/// Over the cap this part of it is closed as well: finding the oldest looks at every target.
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

    /// A target had `before` idle connections and has `now`.
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

impl<B: RequestBody> Pools<B> {
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

    /// Over `--max-memory`, closes the least recently used half of the idle connections.
    pub(super) fn relieve(&self) {
        if self.memory.is_over() {
            self.close_oldest(|idle| idle.div_ceil(2));
        }
    }

    /// Closes as many idle connections as `count` makes of their number, the least recently used first.
    fn close_oldest(&self, count: impl FnOnce(usize) -> usize) {
        let pools = self.all();
        let mut moments: Vec<Moment> = pools.iter().flat_map(|pool| pool.idle_moments()).collect();
        let Some(last) = count(moments.len())
            .checked_sub(1)
            .filter(|last| *last < moments.len())
        else {
            return;
        };
        let (_, last, _) = moments.select_nth_unstable_by(last, Moment::by_age);
        for pool in pools {
            pool.close_until(last);
        }
    }
}
