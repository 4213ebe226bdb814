//! When to fetch again after failures.

use std::time::Duration;

use super::clock::{Deadline, Now};
use super::fetch_error::FetchError;

/// The longest backoff.
const LONGEST: Duration = Duration::from_secs(30);

/// The backoff after failed fetches: 1, 2, 4 … 30 seconds. `Retry-After` may extend it, to at most 30 seconds. The
/// number of fetches is not limited. [`retry`](super::retry) repeats the attempts within one fetch.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<FetchError>,
    until: Option<Deadline>,
}

// === impl Backoff ===

impl Backoff {
    /// Records a failure. It causes no backoff if the instance was suspended during the fetch (`suspended`).
    pub(super) fn failed(&mut self, error: FetchError, suspended: bool, now: Now) {
        self.until = if suspended {
            None
        } else {
            let doubled = Duration::from_secs(1 << self.failures.min(5));
            let wait = doubled.max(error.retry_after.unwrap_or_default());
            self.failures = self.failures.saturating_add(1);
            Some(now.after(wait.min(LONGEST)))
        };
        self.last = Some(error);
    }

    /// Resets the failures. Returns whether there were any.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    /// Returns the time until the next fetch may begin, or `None` if it may begin now.
    pub(super) fn left(&self, now: Now) -> Option<Duration> {
        let left = self.until?.left(now);
        (!left.is_zero()).then_some(left)
    }

    /// Returns the number of failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the last failure since the last success.
    pub(super) fn last_error(&self) -> Option<&FetchError> {
        self.last.as_ref()
    }
}
