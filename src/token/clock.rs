//! Two clocks, of which the earlier decides.
//!
//! A suspended instance may wake up with its monotonic clock where it stood, and a wall clock may be set in either
//! direction. A token counts as expired as soon as one of them says so, at every use.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The wall clock ticks at least this often (`CONFIG_HZ` of 100; clock_getres(2)).
const RESOLUTION: Duration = Duration::from_millis(10);

/// One look at both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What the rest of the world calls now.
    pub wall: SystemTime,
    /// What no one can set.
    pub mono: Instant,
}

/// A moment on both clocks; it is reached as soon as one of them has reached it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    wall: SystemTime,
    mono: Instant,
}

// === impl Now ===

impl Now {
    /// Reads both clocks.
    #[expect(
        clippy::self_named_constructors,
        reason = "it is what every clock calls it"
    )]
    pub fn now() -> Self {
        Self::at(Instant::now())
    }

    /// Reads the wall clock only, where somebody has just read the other: each costs a request as much as the token.
    pub fn at(mono: Instant) -> Self {
        Self {
            #[cfg(not(test))]
            wall: wall(),
            #[cfg(test)]
            wall: tests::wall(mono),
            mono,
        }
    }

    /// The moment that is `wait` away. A span that no clock can hold ends at once, which is the safe side.
    pub fn after(self, wait: Duration) -> Deadline {
        Deadline {
            wall: self.wall.checked_add(wait).unwrap_or(self.wall),
            mono: self.mono.checked_add(wait).unwrap_or(self.mono),
        }
    }

    /// How long ago `earlier` was, by the clock that ran further: what was frozen is as old as it looks from outside.
    pub fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.mono.saturating_duration_since(earlier.mono))
    }
}

// === impl Deadline ===

impl Deadline {
    /// What is left until then, by the clock that has less. Zero when it is over, or so close that the wall clock cannot
    /// tell: a caller who waits for what one look said finds the deadline passed, though the clock lagged at the other.
    pub fn left(&self, now: Now) -> Duration {
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        let left = wall.min(self.mono.saturating_duration_since(now.mono));
        if left < RESOLUTION {
            return Duration::ZERO;
        }
        left
    }

    /// The moment as the wall clock tells it, for people.
    pub fn wall(&self) -> SystemTime {
        self.wall
    }
}

/// Late by some milliseconds at most, and read in a fifth of the time (clock_gettime(2), `CLOCK_REALTIME_COARSE`): no
/// token is used that close to its end.
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
