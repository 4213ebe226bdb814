//! Counts the interim responses of HTTP/1.1 by their status lines.

use super::MAX_INTERIM;

/// Parses status lines until that of the final response.
#[derive(Debug)]
pub(in crate::upstream) struct Http1 {
    state: ScanState,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
enum ScanState {
    /// Before a status line. Empty lines may precede it (RFC 9112, 2.2).
    Before,
    /// In a status line, after this number of bytes.
    Line(u8),
    /// In a status line that begins with `HTTP/1.1 10`.
    Switching,
    /// In the rest of an interim head; `empty`: nothing is on this line yet.
    Head { empty: bool },
    /// The response is final.
    Final,
}

// === impl Http1 ===

impl Http1 {
    /// Returns the state at the start of a request.
    pub(super) const fn new() -> Self {
        Self {
            state: ScanState::Before,
            count: 0,
        }
    }

    /// Reads bytes. Returns `None` if there are too many interim responses.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (ScanState::Final, _) => return Some(()),
                (ScanState::Before, b'\r' | b'\n') => ScanState::Before,
                (ScanState::Before, _) => ScanState::Line(1),
                // `HTTP/1.1 1`. hyper checks the rest.
                (ScanState::Line(9), b'1') => ScanState::Line(10),
                (ScanState::Line(9), _) => ScanState::Final,
                (ScanState::Line(10), b'0') => ScanState::Switching,
                (ScanState::Line(10), _) => self.interim()?,
                (ScanState::Line(at), _) => ScanState::Line(at + 1),
                // 101 is final: the connection switches to another protocol.
                (ScanState::Switching, b'1') => ScanState::Final,
                (ScanState::Switching, _) => self.interim()?,
                (ScanState::Head { empty: true }, b'\n') => ScanState::Before,
                (ScanState::Head { .. }, b'\n') => ScanState::Head { empty: true },
                (head, b'\r') => head,
                (ScanState::Head { .. }, _) => ScanState::Head { empty: false },
            };
        }
        Some(())
    }

    fn interim(&mut self) -> Option<ScanState> {
        self.count += 1;
        (self.count <= MAX_INTERIM).then_some(ScanState::Head { empty: false })
    }
}
