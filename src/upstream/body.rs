//! A response body, with the guard of its connection.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::failure;
use super::pool::ConnectionGuard;
use super::unsent::Unsent;

/// A response's body.
///
/// At its end, it returns an HTTP/1.1 connection to the pool. If it is dropped before, it closes that connection or
/// resets the HTTP/2 stream.
pub struct UpstreamBody {
    incoming: Incoming,
    guard: Option<ConnectionGuard>,
    unsent: Option<Unsent>,
    http2: bool,
}

/// HTTP/2: the stream was reset with NO_ERROR before its end. hyper reports that as the end.
#[derive(Debug, thiserror::Error)]
#[error("the upstream reset the stream before the end of its response")]
struct TruncatedResponse;

// === impl UpstreamBody ===

impl UpstreamBody {
    pub(super) fn new(response: Response<Incoming>, guard: ConnectionGuard) -> Response<Self> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let http2 = response.version() == Version::HTTP_2;
        response.map(|incoming| {
            let mut body = Self {
                incoming,
                guard: Some(guard),
                unsent: None,
                http2,
            };
            // A connection that switched protocols cannot carry another request.
            if !switched && http_body::Body::is_end_stream(&body.incoming) {
                body.complete();
            }
            body
        })
    }

    /// Returns the next piece only if little of the previous ones is still in use. This is for a reader that drops each
    /// piece once it is written; a reader that keeps them would wait forever.
    #[must_use]
    pub(crate) fn paced(mut self) -> Self {
        self.unsent = Some(Unsent::default());
        self
    }

    fn track(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let connection = self.guard.as_ref().and_then(ConnectionGuard::connection);
        match (&mut self.unsent, connection) {
            (Some(unsent), Some(connection)) => frame.map_data(|bytes| {
                unsent.track(bytes, connection.memory(), connection.receive_state())
            }),
            _ => frame,
        }
    }

    fn complete(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.complete();
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(unsent) = &self.unsent {
            ready!(unsent.poll_capacity(cx));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if self.http2 && !self.incoming.is_end_stream() => {
                self.guard = None;
                let error = io::Error::new(io::ErrorKind::ConnectionReset, TruncatedResponse);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = self.track(frame);
                // The reader may stop here without polling for the end.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.guard = None;
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

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}
