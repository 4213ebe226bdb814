//! The priority of fetches. Some permits are reserved for high priority, so that keys from requests cannot use all of
//! them.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The priority of one key's fetches. It may be raised while a fetch waits, and is never lowered.
#[derive(Debug, Default)]
pub(super) struct FetchPriority {
    high: AtomicBool,
    raised: Notify,
}

// === impl FetchPriority ===

impl FetchPriority {
    /// The priority of access tokens, routes and keys that the configuration names.
    pub(super) fn high() -> Self {
        Self {
            high: AtomicBool::new(true),
            ..Self::default()
        }
    }

    pub(super) fn is_high(&self) -> bool {
        self.high.load(Ordering::Acquire)
    }

    pub(super) fn raise(&self) {
        if !self.is_high() {
            self.high.store(true, Ordering::Release);
            self.raised.notify_waiters();
        }
    }

    /// Completes once the priority is high.
    pub(super) async fn raised(&self) {
        let notified = self.raised.notified();
        // `notified` receives every later `notify_waiters`, so no raise is missed after the check.
        if !self.is_high() {
            notified.await;
        }
    }
}
