//! Counts the interim responses of HTTP/1.1 by their status lines.

use super::MOST;

/// Parses status lines until that of the final response.
#[derive(Debug)]
pub(in crate::upstream) struct Http1 {
    state: State,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
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
    /// The state at the start of a request.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Before,
            count: 0,
        }
    }

    /// Reads bytes. Returns `None` if there are too many interim responses.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (State::Final, _) => return Some(()),
                (State::Before, b'\r' | b'\n') => State::Before,
                (State::Before, _) => State::Line(1),
                // `HTTP/1.1 1`. hyper checks the rest.
                (State::Line(9), b'1') => State::Line(10),
                (State::Line(9), _) => State::Final,
                (State::Line(10), b'0') => State::Switching,
                (State::Line(10), _) => self.interim()?,
                (State::Line(at), _) => State::Line(at + 1),
                // 101 is final: the connection switches to another protocol.
                (State::Switching, b'1') => State::Final,
                (State::Switching, _) => self.interim()?,
                (State::Head { empty: true }, b'\n') => State::Before,
                (State::Head { .. }, b'\n') => State::Head { empty: true },
                (head, b'\r') => head,
                (State::Head { .. }, _) => State::Head { empty: false },
            };
        }
        Some(())
    }

    fn interim(&mut self) -> Option<State> {
        self.count += 1;
        (self.count <= MOST).then_some(State::Head { empty: false })
    }
}
