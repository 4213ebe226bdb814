//! Times on the wall clock and the monotonic clock. A deadline is reached when either clock reaches it.
//!
//! The monotonic clock may stop while an instance is suspended, and the wall clock may be set in either direction. A
//! token counts as expired as soon as one of the clocks says so. This is checked at every use.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The longest time between two ticks of the wall clock (`CONFIG_HZ` of 100; clock_getres(2)).
const RESOLUTION: Duration = Duration::from_millis(10);

/// The time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock.
    pub(crate) wall: SystemTime,
    /// The monotonic clock.
    pub mono: Instant,
}

/// A time on both clocks. It is reached as soon as one of them reaches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    wall: SystemTime,
    mono: Instant,
}

// === impl Now ===

impl Now {
    /// Reads both clocks.
    #[expect(clippy::self_named_constructors, reason = "every clock names it so")]
    pub fn now() -> Self {
        Self::at(Instant::now())
    }

    /// Reads only the wall clock, if the caller has just read the other. Reading a clock costs as much as reading a
    /// token.
    pub fn at(mono: Instant) -> Self {
        Self {
            #[cfg(not(test))]
            wall: wall(),
            #[cfg(test)]
            wall: tests::wall(mono),
            mono,
        }
    }

    /// Returns the deadline in `wait`. If a clock cannot represent it, the deadline is reached at once.
    pub(crate) fn after(self, wait: Duration) -> Deadline {
        Deadline {
            wall: self.wall.checked_add(wait).unwrap_or(self.wall),
            mono: self.mono.checked_add(wait).unwrap_or(self.mono),
        }
    }

    /// Returns the time since `earlier`, by the clock that ran further. It includes the time of a suspension.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.mono.saturating_duration_since(earlier.mono))
    }
}

// === impl Deadline ===

impl Deadline {
    /// Returns the remaining time, by the clock that has less left. Returns zero if the deadline is reached or closer
    /// than the wall clock's resolution. A caller that waits for the returned time then finds the deadline reached.
    pub(crate) fn left(&self, now: Now) -> Duration {
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        let left = wall.min(self.mono.saturating_duration_since(now.mono));
        if left < RESOLUTION {
            return Duration::ZERO;
        }
        left
    }

    /// Returns the deadline on the wall clock.
    pub(crate) fn wall(&self) -> SystemTime {
        self.wall
    }
}

/// Reads `CLOCK_REALTIME_COARSE` (clock_gettime(2)): it lags by some milliseconds and takes a fifth of the time. No
/// token is used so close to its expiry.
#[cfg(all(not(test), target_os = "linux"))]
fn wall() -> SystemTime {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Duration::try_from(since)
        .ok()
        .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
        .unwrap_or_else(SystemTime::now)
}

#[cfg(all(not(test), not(target_os = "linux")))]
fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
pub(super) mod tests;
