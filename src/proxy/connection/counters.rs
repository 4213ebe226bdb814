//! Counts connections and own answers, up to their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory::Memory;

/// The maximum of unread own answers to unauthenticated callers, on all connections.
const UNAUTHENTICATED_RESPONSES: usize = 512;

/// Counts the connections under one limit, and the own answers on them.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(super) limit: usize,
    pub(super) memory: Memory,
    pub(super) admitted: AtomicUsize,
    pub(super) own_responses: Counter,
    pub(super) unauthenticated_responses: Counter,
}

/// Counts up to a limit.
#[derive(Debug)]
pub(super) struct Counter {
    limit: usize,
    count: AtomicUsize,
}

// === impl Connections ===

impl Connections {
    /// Creates the counters of at most `limit` connections, and as many unread answers of our own. They count against
    /// `memory`.
    pub(crate) fn new(limit: usize, memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            limit,
            memory,
            admitted: AtomicUsize::new(0),
            own_responses: Counter::new(limit),
            unauthenticated_responses: Counter::new(UNAUTHENTICATED_RESPONSES),
        })
    }

    /// Returns the number of connections that count under the limit.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }
}

// === impl Counter ===

impl Counter {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            count: AtomicUsize::new(0),
        }
    }

    /// Adds one to the count. Returns false if the limit is reached.
    pub(super) fn take(&self) -> bool {
        let fits = self.count.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !fits {
            self.give_back();
        }
        fits
    }

    /// Subtracts one from the count.
    pub(super) fn give_back(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
