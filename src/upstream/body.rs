//! A response's body, and with it the hold on the connection that it comes over.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::failure;
use super::pool::Hold;

/// A response's body.
///
/// Read to its end, it gives an HTTP/1.1 connection back to the pool. Dropped before, it closes that connection, or
/// resets the HTTP/2 stream.
pub struct Body {
    incoming: Incoming,
    hold: Option<Hold>,
    http2: bool,
}

/// HTTP/2: the stream was reset without an error before its end, which hyper takes for the end.
#[derive(Debug, thiserror::Error)]
#[error("the upstream reset the stream before the end of its answer")]
struct Truncated;

// === impl Body ===

impl Body {
    pub(super) fn new(response: Response<Incoming>, hold: Hold) -> Response<Self> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let http2 = response.version() == Version::HTTP_2;
        response.map(|incoming| {
            let mut body = Self {
                incoming,
                hold: Some(hold),
                http2,
            };
            // A connection that switched protocols speaks no HTTP any more.
            if !switched && http_body::Body::is_end_stream(&body.incoming) {
                body.complete();
            }
            body
        })
    }

    fn complete(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.complete();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if self.http2 && !self.incoming.is_end_stream() => {
                self.hold = None;
                let error = io::Error::new(io::ErrorKind::ConnectionReset, Truncated);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                // Whoever reads may stop here, without asking for the end.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.hold = None;
                Poll::Ready(Some(Err(failure::of_body(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
