//! The permit of the request limit that a request holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

/// A permit that can be released through a shared reference. Not a `SemaphorePermit`, because bodies and a tunnel share
/// the record that holds it. If the proxy answers itself, the permit is released before the record.
#[derive(Debug, Default)]
pub(super) struct HeldPermit {
    semaphore: OnceLock<Arc<Semaphore>>,
    is_held: AtomicBool,
}

// === impl HeldPermit ===

impl HeldPermit {
    /// Takes over one permit of `semaphore`, which the caller has acquired and forgotten.
    pub(super) fn hold(&self, semaphore: &Arc<Semaphore>) {
        if self.semaphore.set(semaphore.clone()).is_ok() {
            self.is_held.store(true, Ordering::Relaxed);
        }
    }

    /// Releases the permit, if it is held.
    pub(super) fn release(&self) {
        if self.is_held.swap(false, Ordering::Relaxed)
            && let Some(semaphore) = self.semaphore.get()
        {
            semaphore.add_permits(1);
        }
    }
}
