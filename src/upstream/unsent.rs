//! Limits the bytes of a body that hyper holds and has not written yet.
//!
//! hyper reads a body as fast as it arrives, and queues 400 KiB or more for a peer that does not read. This body
//! instead delays the next chunk until earlier ones are written. Meanwhile, the HTTP/1.1 connection that they come from is
//! not read, or hyper would hold the next chunk. Waiting bytes count against `--max-memory`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::receive_state::ReceiveState;
use crate::lock::lock;
use crate::memory::{Charge, Memory};

/// The number of unwritten bytes at which the next chunk waits.
const MAX_UNSENT: usize = 64 * 1024;

/// Smaller chunks are not tracked, because hyper queues at most 16 chunks.
const SMALL: usize = 8 * 1024;

/// The unwritten chunks of one body.
#[derive(Debug, Default)]
pub(super) struct Unsent(Option<Arc<InFlightChunks>>);

#[derive(Debug, Default)]
struct InFlightChunks {
    bytes: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
    /// The HTTP/1.1 connection that the body comes from.
    source: Option<ReceiveState>,
}

/// A chunk of a body. hyper drops it once it is written, or will never be written.
struct TrackedChunk {
    bytes: Bytes,
    chunks: Arc<InFlightChunks>,
    _charge: Charge,
}

// === impl Unsent ===

impl Unsent {
    /// Waits until there is capacity for the next chunk.
    pub(super) fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Some(chunks) if chunks.is_full() => {
                *lock(&chunks.waiting) = Some(cx.waker().clone());
                // The last chunk may have been written just before.
                if chunks.is_full() {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            }
            _ => Poll::Ready(()),
        }
    }

    /// Tracks a chunk until it is dropped. The bytes stay the same. `source` is not read while there is no capacity.
    pub(super) fn track(
        &mut self,
        bytes: Bytes,
        memory: &Memory,
        source: Option<&ReceiveState>,
    ) -> Bytes {
        if bytes.len() < SMALL {
            return bytes;
        }
        let chunks = Arc::clone(self.0.get_or_insert_with(|| {
            Arc::new(InFlightChunks {
                source: source.cloned(),
                ..InFlightChunks::default()
            })
        }));
        chunks.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(source) = &chunks.source
            && chunks.is_full()
        {
            source.pause();
        }
        Bytes::from_owner(TrackedChunk {
            _charge: memory.charge(bytes.len()),
            bytes,
            chunks,
        })
    }
}

// === impl InFlightChunks ===

impl InFlightChunks {
    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= MAX_UNSENT
    }
}

// === impl TrackedChunk ===

impl AsRef<[u8]> for TrackedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for TrackedChunk {
    fn drop(&mut self) {
        let length = self.bytes.len();
        let before = self.chunks.bytes.fetch_sub(length, Ordering::AcqRel);
        if before >= MAX_UNSENT && before - length < MAX_UNSENT {
            if let Some(source) = &self.chunks.source {
                source.resume();
            }
            if let Some(waiting) = lock(&self.chunks.waiting).take() {
                waiting.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn the_next_piece_waits_until_one_is_written() {
        let memory = Memory::default();
        let mut unsent = Unsent::default();
        let first = unsent.track(vec![1; MAX_UNSENT / 2].into(), &memory, None);
        let second = unsent.track(vec![2; MAX_UNSENT / 2].into(), &memory, None);
        assert_eq!((first[0], second.len()), (1, MAX_UNSENT / 2));
        assert_eq!(memory.used(), MAX_UNSENT);
        let mut room = pin!(poll_fn(|cx| unsent.poll_capacity(cx)));
        let early = poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx))).await;
        assert!(early.is_pending());
        let written = tokio::spawn(async move { drop(first) });
        room.await;
        written.await.unwrap();
        assert_eq!(memory.used(), MAX_UNSENT / 2);
        drop((unsent, second));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn its_connection_is_not_read_while_pieces_wait() {
        let memory = Memory::default();
        let source = ReceiveState::default();
        let mut unsent = Unsent::default();
        let first = unsent.track(vec![1; MAX_UNSENT / 2].into(), &memory, Some(&source));
        assert!(!source.is_paused());
        let second = unsent.track(vec![2; MAX_UNSENT / 2].into(), &memory, Some(&source));
        assert!(source.is_paused());
        drop(first);
        assert!(!source.is_paused());
        drop(second);
    }

    #[test]
    fn small_pieces_are_passed_as_they_are() {
        let memory = Memory::default();
        let mut unsent = Unsent::default();
        let piece = Bytes::from_static(b"small");
        let tracked = unsent.track(piece.clone(), &memory, None);
        assert_eq!(tracked.as_ptr(), piece.as_ptr());
        assert!(unsent.0.is_none());
    }
}
