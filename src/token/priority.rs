//! Which fetches may use the concurrent ones that are kept free of names that requests invent.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The priority of one key's fetches. It is raised while a fetch waits, and never lowered.
#[derive(Debug, Default)]
pub(super) struct FetchPriority {
    high: AtomicBool,
    raised: Notify,
}

// === impl FetchPriority ===

impl FetchPriority {
    /// For access tokens, routes and what the configuration names.
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
        // From here on a call of `notify_waiters` counts, so the flag cannot be raised unseen.
        if !self.is_high() {
            notified.await;
        }
    }
}
