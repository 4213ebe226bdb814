//! A moment on two clocks: an instance may be frozen, and then the monotonic clock may have stood still.

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

    /// By either clock, `age` or more has passed since.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.monotonic.elapsed() >= age || self.wall.elapsed().is_ok_and(|elapsed| elapsed >= age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn either_clock_makes_it_old() {
        let now = Moment::now();
        assert!(!now.is_older_than(HOUR));
        assert!(now.is_older_than(Duration::ZERO));
        let frozen = Moment {
            wall: now.wall - 2 * HOUR,
            ..now
        };
        assert!(frozen.is_older_than(HOUR));
        let set_back = Moment {
            wall: now.wall + 2 * HOUR,
            ..now
        };
        assert!(!set_back.is_older_than(HOUR));
    }
}
