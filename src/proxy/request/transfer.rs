//! The progress of both bodies of a request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts the bytes of both bodies, and notes how the transfer ended. For a tunnel, the bytes in both directions.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    received: AtomicU64,
    sent: AtomicU64,
    complete: AtomicBool,
    abandoned: AtomicBool,
}

// === impl Transfer ===

impl Transfer {
    /// Counts bytes from the app.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes to the app.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The response was sent to its end. If the app closes the connection now, it has not cancelled.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// The app went away while it sent its body, so it does not read the response.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Returns the number of bytes in both directions.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_received().wrapping_add(self.bytes_sent())
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns whether the app received the whole response.
    pub(super) fn is_delivered(&self) -> bool {
        self.complete.load(Ordering::Relaxed) && !self.abandoned.load(Ordering::Relaxed)
    }
}
