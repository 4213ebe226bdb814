//! A moment on two clocks: an instance may be frozen, and then the monotonic clock may have stood still.

use std::cmp::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// When something became idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

// === impl Moment ===

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Orders moments, the earliest first.
    pub(super) fn by_age(&self, other: &Self) -> Ordering {
        self.monotonic.cmp(&other.monotonic)
    }

    /// Whether it came before `other`, or together with it.
    pub(super) fn is_until(&self, other: &Self) -> bool {
        self.monotonic <= other.monotonic
    }

    /// How long ago it was, by the clock that ran further.
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
    fn either_clock_makes_it_old() {
        let now = Moment::now();
        assert!(now.age() < HOUR);
        let frozen = Moment {
            wall: now.wall - 2 * HOUR,
            ..now
        };
        assert!(frozen.age() >= 2 * HOUR);
        let set_back = Moment {
            wall: now.wall + 2 * HOUR,
            ..now
        };
        assert!(set_back.age() < HOUR);
    }
}
