//! The time since which a connection is idle, on two clocks: the monotonic clock may stop while the instance is
//! suspended.

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// The time at which a connection became idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleSince {
    monotonic: Instant,
    wall: SystemTime,
}

// === impl IdleSince ===

impl IdleSince {
    pub(super) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Compares two times, the earliest first.
    pub(super) fn by_age(&self, other: &Self) -> Ordering {
        self.monotonic.cmp(&other.monotonic)
    }

    /// Returns whether it is not later than `other`.
    pub(super) fn is_until(&self, other: &Self) -> bool {
        self.monotonic <= other.monotonic
    }

    /// Returns the time since then, by the clock that ran further.
    pub(super) fn age(&self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        wall.max(self.monotonic.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_age_is_measured_by_the_faster_clock() {
        let now = IdleSince::now();
        assert!(now.age() < HOUR);
        let frozen = IdleSince {
            wall: now.wall - 2 * HOUR,
            ..now
        };
        assert!(frozen.age() >= 2 * HOUR);
        let set_back = IdleSince {
            wall: now.wall + 2 * HOUR,
            ..now
        };
        assert!(set_back.age() < HOUR);
    }
}
