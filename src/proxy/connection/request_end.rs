//! Detects whether the bytes after a request have begun another head.

/// The end of a request's bytes. HTTP/1.1: hyper does not say whether its buffer holds a part of the next head, but the
/// last bytes received do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The whole request was received.
    pub(super) known: bool,
    /// The last bytes of the body, at most four, and their number.
    pub(super) tail: u32,
    length: u8,
}

// === impl End ===

impl End {
    pub(super) const KNOWN: u64 = 1 << 63;

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            known: false,
            tail: Self::shift(0, bytes),
            length: u8::try_from(bytes.len().min(4)).unwrap_or(4),
        }
    }

    /// Returns the last four bytes after these are appended.
    pub(super) fn shift(tail: u32, bytes: &[u8]) -> u32 {
        match bytes.last_chunk() {
            Some(last) => u32::from_be_bytes(*last),
            None => bytes
                .iter()
                .fold(tail, |tail, byte| tail << 8 | u32::from(*byte)),
        }
    }

    pub(super) fn pack(self) -> u64 {
        let known = if self.known { Self::KNOWN } else { 0 };
        known | u64::from(self.length) << 32 | u64::from(self.tail)
    }

    #[allow(clippy::cast_possible_truncation)] // Each part is taken out whole.
    pub(super) fn unpack(packed: u64) -> Self {
        Self {
            known: packed & Self::KNOWN != 0,
            tail: packed as u32,
            length: (packed >> 32) as u8,
        }
    }

    /// Returns whether the request ends with these last bytes of a connection: an empty line, or its content.
    pub(super) fn is_at(self, tail: u32) -> bool {
        let empty_line = tail & 0x00ff_ffff == 0x000a_0d0a || tail & 0xffff == 0x0a0a;
        let mask = match self.length {
            0 => return empty_line,
            length @ 1..=3 => (1 << (8 * length)) - 1,
            _ => u32::MAX,
        };
        empty_line || tail & mask == self.tail & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_of_a_request_tell_whether_more_follows() {
        for (content, received, follows) in [
            ("", "GET / HTTP/1.1\r\n\r\n", false),
            ("", "GET / HTTP/1.1\n\n", false),
            ("", "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", true),
            ("", "GET / HTTP/1.1\r\n\r\nG", true),
            ("a", "Content-Length: 1\r\n\r\na", false),
            ("a", "Content-Length: 1\r\n\r\naG", true),
            ("hello", "Content-Length: 5\r\n\r\nhello", false),
            ("hello", "Content-Length: 5\r\n\r\nhelloGET /", true),
            ("hello", "5\r\nhello\r\n0\r\n\r\n", false),
            ("hello", "5\r\nhello\r\n0\r\n\r\nGE", true),
        ] {
            for step in 1..8 {
                let mut tail = 0;
                for part in received.as_bytes().chunks(step) {
                    tail = End::shift(tail, part);
                }
                let end = End::unpack(End::of(content.as_bytes()).pack() | End::KNOWN);
                assert!(end.known);
                assert_eq!(!end.is_at(tail), follows, "{received:?}");
            }
        }
    }
}
