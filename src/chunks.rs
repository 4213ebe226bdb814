//! The buffered bytes of a body that may be resent.
//!
//! A retry needs the bytes that the first attempt has sent. An app may send them in many small chunks, whose overhead
//! would exceed the bytes themselves.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks of fewer bytes are copied into one buffer, except the first, so that a body of one chunk is never copied.
const SMALL: usize = 1024;

/// The chunks of a body, first in, first out. Small chunks share a buffer. As separate `Bytes`, each would take 32
/// bytes more, and keep the whole buffer that it was read into.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunks: VecDeque<Bytes>,
    /// Small chunks that follow `chunks`.
    tail: BytesMut,
    length: usize,
}

// === impl Chunks ===

impl Chunks {
    /// Appends a chunk.
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        self.length = self.length.saturating_add(chunk.len());
        if chunk.is_empty() {
            return;
        }
        if chunk.len() < SMALL && !self.chunks.is_empty() {
            self.tail.extend_from_slice(chunk);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(chunk.clone());
    }

    /// Removes the first bytes: one chunk, or all small chunks that share the buffer.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front();
        let chunk =
            chunk.or_else(|| (!self.tail.is_empty()).then(|| self.tail.split().freeze()))?;
        self.length = self.length.saturating_sub(chunk.len());
        Some(chunk)
    }

    /// Appends the chunks of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some(chunk) = other.pop() {
            self.push(&chunk);
        }
    }

    /// Returns the number of bytes in all chunks.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn popped(mut chunks: Chunks) -> Vec<Bytes> {
        std::iter::from_fn(|| chunks.pop()).collect()
    }

    #[test]
    fn a_body_in_many_small_pieces_is_kept_in_few() {
        let mut chunks = Chunks::default();
        for _ in 0..64 * 1024 {
            chunks.push(&Bytes::from_static(b"x"));
            chunks.push(&Bytes::new());
        }
        assert_eq!(chunks.length(), 64 * 1024);
        assert!(popped(chunks).len() <= 2);
    }

    proptest! {
        #[test]
        fn the_bytes_are_unchanged(sizes in prop::collection::vec(0usize..3000, 0..20), split in 0usize..20) {
            let parts: Vec<Bytes> = (0u8..).zip(&sizes).map(|(n, size)| vec![n; *size].into()).collect();
            let (mut chunks, mut more) = (Chunks::default(), Chunks::default());
            for (n, part) in parts.iter().enumerate() {
                if n < split { chunks.push(part) } else { more.push(part) }
            }
            chunks.append(more);
            prop_assert_eq!(chunks.length(), sizes.iter().sum::<usize>());
            prop_assert_eq!(chunks.is_empty(), chunks.length() == 0);
            prop_assert_eq!(popped(chunks).concat(), parts.concat());
        }
    }
}
