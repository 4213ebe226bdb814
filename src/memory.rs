//! The budget of `--max-memory`.
//!
//! Memory is counted where it is held: a fixed estimate for each open connection, and the bytes of large heads and of
//! bodies that were read and not written yet. The sum is an estimate of what callers and upstreams make the process hold;
//! code, configuration and tokens come on top.
//!
//! Large heads have a budget of their own within it. A head is copied on its way, so they may hold an eighth, and at most
//! 24 MiB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Estimate for an open connection to an upstream: the buffers of HTTP, of TLS, and its task.
pub const UPSTREAM_CONNECTION: usize = 40 * 1024;

/// Estimate for an open connection of a client: its task, and the buffer that it begins with.
pub const CLIENT_CONNECTION: usize = 8 * 1024;

/// hyper doubles its buffer after each read that fills it. Reads of fewer bytes keep the buffer at this size.
pub const READ: usize = 64 * 1024;

/// A head up to this size is not counted.
pub const SMALL_HEAD: usize = 16 * 1024;

/// What large heads may hold together, whatever the budget is: one of them always fits.
const HEADS: std::ops::RangeInclusive<usize> = 1024 * 1024..=24 * 1024 * 1024;

/// A budget in bytes, shared by its clones.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    used: AtomicUsize,
    limit: AtomicUsize,
    /// The part of `used` that is large heads.
    heads: AtomicUsize,
}

/// The bytes of large heads, counted against a [`Memory`] until dropped.
#[derive(Debug)]
pub struct Heads {
    memory: Memory,
    bytes: usize,
}

/// Large heads hold too much for another one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "large heads hold {held} of {limit} bytes (an eighth of --max-memory, {} to {} bytes)",
    HEADS.start(),
    HEADS.end()
)]
pub struct HeadsFull {
    held: usize,
    limit: usize,
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
            heads: AtomicUsize::new(0),
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

    /// Counts the heads of one connection or request: none so far.
    pub fn heads(&self) -> Heads {
        Heads {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// What large heads may hold together.
    fn heads_limit(&self) -> usize {
        (self.limit() / 8).clamp(*HEADS.start(), *HEADS.end())
    }

    /// Large heads hold more than half of what they may: those that are not needed any more should go.
    pub fn is_crowded(&self) -> bool {
        self.0.heads.load(Ordering::Relaxed) > self.heads_limit() / 2
    }

    /// Why another large head is refused.
    pub fn heads_full(&self) -> HeadsFull {
        HeadsFull {
            held: self.0.heads.load(Ordering::Relaxed),
            limit: self.heads_limit(),
        }
    }
}

impl Default for Memory {
    /// A budget that is never over.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

// === impl Heads ===

impl Heads {
    /// The bytes counted.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a head of so many bytes, in place of what was counted before; nothing where it is small.
    ///
    /// # Errors
    ///
    /// Large heads would hold too much. What was counted before stays so.
    pub fn set(&mut self, bytes: usize) -> Result<(), HeadsFull> {
        self.replace(bytes, self.memory.heads_limit())
    }

    /// As [`Heads::set`], for a header block that is not complete. Those have a third more: the request can be refused when
    /// its block is complete, but before that only the connection with all its requests.
    ///
    /// # Errors
    ///
    /// As [`Heads::set`].
    pub fn set_incomplete(&mut self, bytes: usize) -> Result<(), HeadsFull> {
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
        // Less is never refused.
        let _ = self.set(0);
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

    #[test]
    fn large_heads_share_an_eighth_and_small_ones_count_nothing() {
        let memory = Memory::new(16 * 1024 * 1024);
        let mut first = memory.heads();
        first.set(SMALL_HEAD).unwrap();
        assert_eq!(memory.used(), 0);
        first.set(1024 * 1024).unwrap();
        assert!(!memory.is_crowded());
        let mut second = memory.heads();
        second.set(1024 * 1024).unwrap();
        assert!(memory.is_crowded());
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
    fn one_head_always_fits() {
        let memory = Memory::new(1);
        assert!(memory.heads().set(512 * 1024).is_ok());
        assert!(Memory::default().heads().set(33 * 1024 * 1024).is_err());
    }
}
