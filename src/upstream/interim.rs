//! Limits interim responses (1xx). hyper discards any number of them over HTTP/1.1, and h2 buffers them over HTTP/2
//! until the final response. An upstream could hold a request, or exhaust the memory, with interim responses alone.
//!
//! Over HTTP/2, too many of them end only their stream: a malformed response head is inserted into the bytes that h2
//! reads, and h2 resets the stream. When a connection is lost, an inserted RST_STREAM marks each stream that had
//! received a response.

use std::io;

use bytes::Bytes;

use self::http1::Http1;
use self::http2::{Http2, LOST};

mod http1;
mod http2;

/// The largest number of interim responses to one request.
pub(super) const MAX_INTERIM: u32 = 32;

/// Counts the interim responses on one connection.
#[derive(Debug)]
pub(super) enum InterimLimiter {
    Http1(Http1),
    Http2(Http2),
}

/// Frames to insert at a position of the bytes that were read.
#[derive(Debug)]
pub(super) struct Inserted {
    pub(super) at: usize,
    pub(super) frames: Bytes,
}

/// The error of the connection's reader.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_INTERIM} interim responses (1xx) to one request, or too large ones")]
struct TooMany;

// === impl TooMany ===

impl TooMany {
    /// Returns the error. Its kind differs from those of sockets and TLS, because h2 may keep only the kind.
    fn error() -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, Self)
    }
}

/// Returns whether the stream was reset because its connection was lost after an interim response.
pub(super) fn is_lost(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(LOST.into())
}

/// Returns whether the connection ended because of too many interim responses.
pub(super) fn is_flood(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}

// === impl InterimLimiter ===

impl InterimLimiter {
    pub(super) const fn http1() -> Self {
        Self::Http1(Http1::new())
    }

    pub(super) fn http2() -> Self {
        Self::Http2(Http2::default())
    }

    /// Processes bytes that were read. `first`: they are the first since a request began. If frames are to be inserted,
    /// the bytes from that position on count as not processed.
    ///
    /// # Errors
    ///
    /// Too many interim responses: the connection must end.
    pub(super) fn read(&mut self, first: bool, bytes: &[u8]) -> io::Result<Option<Inserted>> {
        match self {
            Self::Http1(http1) => {
                if first {
                    *http1 = Http1::new();
                }
                http1.read(bytes).ok_or_else(TooMany::error)?;
                Ok(None)
            }
            Self::Http2(http2) => http2.read(bytes).ok_or_else(TooMany::error),
        }
    }

    /// Called when the connection is lost. Returns the frames to read before its end, or none if a frame was cut off.
    pub(super) fn on_connection_lost(&mut self) -> Bytes {
        match self {
            Self::Http1(_) => Bytes::new(),
            Self::Http2(http2) => http2.on_connection_lost(),
        }
    }

    /// HTTP/2: returns whether a stream may have received interim responses only.
    pub(super) const fn is_waiting(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(http2) => http2.is_waiting(),
        }
    }
}

#[cfg(test)]
mod tests;
