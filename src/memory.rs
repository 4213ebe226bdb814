//! The budget of `--max-memory`.
//!
//! Memory is counted where it is held: a fixed estimate for each open connection, and the bytes of large heads and of
//! bodies that were read and not written yet. The sum is an estimate of what callers and upstreams make the process hold;
//! code, configuration and tokens come on top.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Estimate for an open connection to an upstream: the buffers of HTTP, of TLS, and its task.
pub const UPSTREAM_CONNECTION: usize = 40 * 1024;

/// A budget in bytes, shared by its clones.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    used: AtomicUsize,
    limit: AtomicUsize,
}

/// Bytes counted against a [`Memory`] until dropped.
#[derive(Debug)]
pub struct Charge {
    memory: Memory,
    bytes: usize,
}

// === impl Memory ===

impl Memory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Counters {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }))
    }

    /// Replaces the limit; what is counted stays counted.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// The bytes counted now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether more is counted than the limit allows.
    pub fn is_over(&self) -> bool {
        self.used() > self.limit()
    }

    /// Counts `bytes` until the result is dropped. Never refuses: who takes on new work asks [`Memory::is_over`] first.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            memory: self.clone(),
            bytes,
        }
    }
}

impl Default for Memory {
    /// A budget that is never over.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

// === impl Charge ===

impl Charge {
    /// The budget that it counts against.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_counts_until_it_is_dropped() {
        let memory = Memory::new(100);
        let first = memory.charge(100);
        assert!(!memory.is_over());
        let second = memory.clone().charge(1);
        assert!(memory.is_over());
        memory.set_limit(101);
        assert!(!memory.is_over());
        drop(first);
        assert_eq!(memory.used(), 1);
        drop(second);
        assert_eq!(memory.used(), 0);
    }
}
