//! Interim responses (1xx), counted as they are read. hyper discards those of HTTP/1.1 without an end, and h2 keeps those of
//! HTTP/2 until the final response: an upstream could hold a request, or fill the memory, with nothing else.
//!
//! Over HTTP/2 too many end their own stream, not the connection: h2 is made to reset it by a malformed response head that is
//! inserted into what it reads. By RST_STREAM in the same way, h2 learns which streams had heard something when their
//! connection was lost.

use std::io;

use bytes::Bytes;

use self::http1::Http1;
use self::http2::{Http2, LOST};

mod http1;
mod http2;

/// Interim responses to one request; more are an error of the upstream.
pub(super) const MOST: u32 = 32;

/// Counts the interim responses on one connection.
#[derive(Debug)]
pub(super) enum Interim {
    Http1(Http1),
    Http2(Http2),
}

/// Frames to be read at this place in the bytes that were read, before the rest of them.
#[derive(Debug)]
pub(super) struct Inserted {
    pub(super) at: usize,
    pub(super) frames: Bytes,
}

/// What the reader of the connection is told.
#[derive(Debug, thiserror::Error)]
#[error("more than {MOST} interim responses (1xx) to one request, or too large ones")]
struct TooMany;

// === impl TooMany ===

impl TooMany {
    /// The kind tells it from the errors of sockets and of TLS, also where h2 keeps no more than that.
    fn error() -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, Self)
    }
}

/// The stream was reset because its connection was lost after it had heard an interim response.
pub(super) fn is_lost(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(LOST.into())
}

/// The connection ended because of too many interim responses.
pub(super) fn is_flood(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}

// === impl Interim ===

impl Interim {
    pub(super) const fn http1() -> Self {
        Self::Http1(Http1::new())
    }

    pub(super) fn http2() -> Self {
        Self::Http2(Http2::default())
    }

    /// Looks at bytes that were read; `first`: they are the first since a request began. Where something is to be inserted,
    /// the bytes from there on count as not looked at.
    ///
    /// # Errors
    ///
    /// There are too many interim responses for the connection to go on.
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

    /// The connection is lost: what is to be read before its end. Nothing where a frame was cut off.
    pub(super) fn lost(&mut self) -> Bytes {
        match self {
            Self::Http1(_) => Bytes::new(),
            Self::Http2(http2) => http2.lost(),
        }
    }

    /// HTTP/2: a stream has heard a response, and as far as is known no final one.
    pub(super) const fn is_waiting(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(http2) => http2.is_waiting(),
        }
    }
}

#[cfg(test)]
mod tests;
