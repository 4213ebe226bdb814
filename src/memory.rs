//! The budget of `--max-memory`.
//!
//! Each holder counts its memory: a connection a fixed estimate, a large head its bytes, and a body the bytes that were
//! read and not yet written. The sum estimates the memory that callers and upstreams cause. Code,
//! configuration and tokens are not counted.
//!
//! Large heads have their own limit within the budget, because a head is copied: an eighth, and at most 24 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The estimate for an open connection to an upstream: the buffers of HTTP and TLS, and its task.
pub const UPSTREAM_CONNECTION: usize = 40 * 1024;

/// The estimate for an idle connection to an upstream that has no buffers of HTTP.
pub const PARKED_CONNECTION: usize = 12 * 1024;

/// The estimate for an open connection of a client: its task and its initial buffer.
pub(crate) const CLIENT_CONNECTION: usize = 8 * 1024;

/// hyper doubles its buffer after each read that fills it. Reads of fewer bytes keep the buffer at this size.
pub(crate) const READ: usize = 64 * 1024;

/// A head up to this size is not counted.
pub(crate) const SMALL_HEAD: usize = 16 * 1024;

/// The limits of what large heads may hold together. One head always fits.
const HEADS: std::ops::RangeInclusive<usize> = 1024 * 1024..=24 * 1024 * 1024;

/// A budget in bytes, shared by its clones.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    used: AtomicUsize,
    limit: AtomicUsize,
    /// The part of `used` that large heads hold.
    heads: AtomicUsize,
}

/// The bytes of large heads. They count against a [`Memory`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Heads {
    memory: Memory,
    bytes: usize,
}

/// Large heads hold too many bytes to admit another one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "large heads hold {held} of {limit} bytes (an eighth of --max-memory, {} to {} bytes)",
    HEADS.start(),
    HEADS.end()
)]
pub(crate) struct HeadsFull {
    held: usize,
    limit: usize,
}

/// Bytes that count against a [`Memory`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Memory,
    bytes: usize,
}

// === impl Memory ===

impl Memory {
    /// Creates a budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Counters {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            heads: AtomicUsize::new(0),
        }))
    }

    /// Replaces the limit. Counted bytes stay counted.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the limit in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Returns the number of counted bytes.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns whether more bytes are counted than the limit allows.
    pub(crate) fn is_over(&self) -> bool {
        self.used() > self.limit()
    }

    /// Counts `bytes` until the result is dropped. Never refuses: callers check [`Memory::is_over`] before new work.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            memory: self.clone(),
            bytes,
        }
    }

    /// Returns a counter for the heads of one connection or request. It starts at zero.
    pub(crate) fn heads(&self) -> Heads {
        Heads {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Returns the number of bytes that large heads may hold together.
    fn heads_limit(&self) -> usize {
        (self.limit() / 8).clamp(*HEADS.start(), *HEADS.end())
    }

    /// Returns whether large heads hold more than half of their limit. Heads that are not needed should then be
    /// dropped.
    pub(crate) fn is_under_pressure(&self) -> bool {
        self.0.heads.load(Ordering::Relaxed) > self.heads_limit() / 2
    }

    /// Returns the error for another large head.
    pub(crate) fn heads_full(&self) -> HeadsFull {
        HeadsFull {
            held: self.0.heads.load(Ordering::Relaxed),
            limit: self.heads_limit(),
        }
    }
}

impl Default for Memory {
    /// Creates a budget without a limit.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

// === impl Heads ===

impl Heads {
    /// Returns the number of counted bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a head of `bytes` instead of the previous count. A small head counts as zero.
    ///
    /// # Errors
    ///
    /// Fails if large heads would hold too much. The previous count then stays.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), HeadsFull> {
        self.replace(bytes, self.memory.heads_limit())
    }

    /// Like [`Heads::set`], for a header block that is not complete. The limit is a third higher: a complete block can
    /// be refused by itself, an incomplete one only together with the connection and all its requests.
    ///
    /// # Errors
    ///
    /// Fails like [`Heads::set`].
    pub(crate) fn set_incomplete(&mut self, bytes: usize) -> Result<(), HeadsFull> {
        let limit = self.memory.heads_limit();
        self.replace(bytes, limit + limit / 3)
    }

    fn replace(&mut self, bytes: usize, limit: usize) -> Result<(), HeadsFull> {
        let bytes = if bytes > SMALL_HEAD { bytes } else { 0 };
        let Counters { used, heads, .. } = &*self.memory.0;
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let held = heads.fetch_add(more, Ordering::Relaxed);
            if more > 0 && held + more > limit {
                heads.fetch_sub(more, Ordering::Relaxed);
                return Err(self.memory.heads_full());
            }
            used.fetch_add(more, Ordering::Relaxed);
        } else {
            heads.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        // A smaller count is never refused.
        let _ = self.set(0);
    }
}

// === impl Charge ===

impl Charge {
    /// Returns the budget that the bytes count against.
    pub(crate) fn memory(&self) -> &Memory {
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
    fn a_charge_counts_until_it_is_dropped() {
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

    #[test]
    fn large_heads_share_an_eighth_of_the_budget() {
        let memory = Memory::new(16 * 1024 * 1024);
        let mut first = memory.heads();
        first.set(SMALL_HEAD).unwrap();
        assert_eq!(memory.used(), 0);
        first.set(1024 * 1024).unwrap();
        assert!(!memory.is_under_pressure());
        let mut second = memory.heads();
        second.set(1024 * 1024).unwrap();
        assert!(memory.is_under_pressure());
        assert!(second.set(1024 * 1024 + 1).is_err());
        assert!(second.set_incomplete(1024 * 1024 + 1).is_ok());
        second.set(1024 * 1024).unwrap();
        assert_eq!(
            (second.bytes(), memory.used()),
            (1024 * 1024, 2 * 1024 * 1024)
        );
        drop(first);
        second.set(2 * 1024 * 1024).unwrap();
        second.set(SMALL_HEAD + 1).unwrap();
        assert_eq!(memory.used(), SMALL_HEAD + 1);
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn one_head_is_always_admitted() {
        let memory = Memory::new(1);
        assert!(memory.heads().set(512 * 1024).is_ok());
        assert!(Memory::default().heads().set(33 * 1024 * 1024).is_err());
    }
}
