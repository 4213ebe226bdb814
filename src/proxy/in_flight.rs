//! Counts the requests in flight, for the drain.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The number of requests in flight in the process.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    in_flight: AtomicUsize,
    begun: AtomicU64,
    idle: Notify,
}

// === impl InFlight ===

impl InFlight {
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Returns the number of requests in flight, including open tunnels.
    pub(crate) fn count(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Waits until no request was in flight for `quiet`.
    pub(crate) async fn quiet(&self, quiet: Duration) {
        loop {
            let idle = self.idle.notified();
            if self.count() > 0 {
                idle.await;
                continue;
            }
            let begun = self.begun.load(Ordering::Acquire);
            tokio::time::sleep(quiet).await;
            if self.count() == 0 && self.begun.load(Ordering::Acquire) == begun {
                return;
            }
        }
    }
}
