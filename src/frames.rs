//! Reads frame headers of HTTP/2 (RFC 9113, 4.1) from the bytes that the h2 crate reads too.

/// The client connection preface (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `DATA`.
pub(crate) const DATA: u8 = 0;
/// `HEADERS`.
pub(crate) const HEADERS: u8 = 1;
/// `RST_STREAM`.
pub(crate) const RST_STREAM: u8 = 3;
/// `CONTINUATION`.
pub(crate) const CONTINUATION: u8 = 9;

/// The flag of a stream's last frame.
pub(crate) const END_STREAM: u8 = 0x1;
/// The flag of a header block's last frame.
pub(crate) const END_HEADERS: u8 = 0x4;
/// The flags PADDED and PRIORITY: the payload does not begin with the header block.
pub(crate) const PADDED_OR_PRIORITY: u8 = 0x28;

/// The length of a frame header in bytes.
const HEAD: usize = 9;

/// The number of payload bytes that are kept: an error code.
const KEPT: usize = 4;

/// Finds the frames in the bytes of one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// The bytes read so far of the next frame's header and of the beginning of its payload.
    head: [u8; HEAD + KEPT],
    read: usize,
    /// The number of bytes before the next frame.
    skip: usize,
}

/// A frame header and the beginning of the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    /// The length of the payload.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// The first bytes of the payload. Bytes beyond its end have no meaning.
    pub(crate) payload: [u8; KEPT],
}

// === impl FrameHeader ===

impl FrameHeader {
    /// Returns the number of bytes that were read: the header and the kept part of the payload.
    pub(crate) const fn bytes(&self) -> usize {
        let length = self.length as usize;
        HEAD + if length < KEPT { length } else { KEPT }
    }
}

// === impl FrameReader ===

impl FrameReader {
    /// Creates a reader of bytes that begin with a preface of this length.
    pub(crate) fn after(preface: usize) -> Self {
        Self {
            skip: preface,
            ..Self::default()
        }
    }

    /// Consumes bytes up to and including the next frame header. Returns `None` if it consumed all of them.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHeader> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                *bytes = bytes.get(skipped..)?;
                continue;
            }
            // Most frames arrive as a whole, so their headers need no buffer.
            if self.read == 0
                && let Some((head, _)) = bytes.split_first_chunk::<{ HEAD + KEPT }>()
            {
                self.head = *head;
                self.read = HEAD;
                *bytes = bytes.get(self.wanted()..)?;
                return Some(self.frame());
            }
            let missing = self.wanted() - self.read;
            let (now, later) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            let head = self.head.get_mut(self.read..self.read + now.len())?;
            head.copy_from_slice(now);
            self.read += now.len();
            *bytes = later;
            if self.read >= HEAD && self.read == self.wanted() {
                return Some(self.frame());
            }
        }
        None
    }

    /// Returns whether the last frame is complete and no byte of the next one was read.
    pub(crate) const fn is_between(&self) -> bool {
        self.skip == 0 && self.read == 0
    }

    /// Returns the payload length of the current frame. Its header must be complete.
    const fn length(&self) -> u32 {
        let [high, middle, low, ..] = self.head;
        u32::from_be_bytes([0, high, middle, low])
    }

    /// Returns the number of bytes of [`Self::head`] that the current frame has, as far as known.
    const fn wanted(&self) -> usize {
        if self.read < HEAD {
            return HEAD;
        }
        let length = self.length() as usize;
        HEAD + if length < KEPT { length } else { KEPT }
    }

    fn frame(&mut self) -> FrameHeader {
        let [_, _, _, kind, flags, a, b, c, d, payload @ ..] = self.head;
        let length = self.length();
        self.skip = (length as usize).saturating_sub(KEPT);
        self.read = 0;
        FrameHeader {
            length,
            kind,
            flags,
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_across_any_read_boundaries() {
        let mut bytes = b"preface".to_vec();
        for length in 0..12_u8 {
            bytes.extend([0, 0, length, length, 7, 0x80, 0, 0, length + 1]);
            bytes.extend((0..length).map(|n| n + 1));
        }
        for step in 1..40 {
            let mut reader = FrameReader::after(7);
            let mut found = Vec::new();
            for mut part in bytes.chunks(step) {
                while let Some(frame) = reader.next(&mut part) {
                    found.push(frame);
                }
            }
            assert_eq!(found.len(), 12, "{step}");
            for (length, frame) in (0_u8..).zip(found) {
                assert_eq!(frame.length, u32::from(length));
                assert_eq!((frame.kind, frame.flags), (length, 7));
                assert_eq!(frame.stream, u32::from(length) + 1);
                let kept = usize::from(length).min(KEPT);
                assert_eq!(frame.payload[..kept], [1, 2, 3, 4][..kept]);
            }
        }
    }
}
