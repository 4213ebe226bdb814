//! An app's request body, counted as it is read.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::record::RequestRecord;
use super::trailers::FilteredTrailers;
use crate::error::BoxError;
use crate::proxy::headers::hop_by_hop::Named;

/// An app's request body. Its bytes are added to the request's record.
#[derive(Debug)]
pub(crate) struct CountedBody {
    body: FilteredTrailers<Incoming>,
    record: Arc<RequestRecord>,
    /// Dropped once nothing is left to send.
    sending: Option<oneshot::Sender<Infallible>>,
}

/// HTTP/2: the app reset the stream without an error before its end, which hyper reports as the end of the body.
#[derive(Debug, thiserror::Error)]
#[error("the app reset the stream before the end of its request")]
struct TruncatedRequest;

// === impl CountedBody ===

impl CountedBody {
    pub(super) fn new(body: Incoming, record: Arc<RequestRecord>) -> Self {
        Self {
            body: FilteredTrailers::new(body),
            record,
            sending: None,
        }
    }

    /// Also removes these trailers.
    pub(super) fn remove_trailers(&mut self, named: Named) {
        self.body.remove_named(named);
    }

    /// Returns a future that completes once the body was read to its end or dropped.
    pub(super) fn end(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (sending, ended) = oneshot::channel();
        self.sending = Some(sending);
        async move {
            let _ = ended.await;
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Body::poll_frame(Pin::new(&mut self.body), cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.request_content(data);
                }
            }
            None if self.record.is_http2() && !self.is_end_stream() => {
                self.record.transfer().abandon();
                self.sending = None;
                return Poll::Ready(Some(Err(TruncatedRequest.into())));
            }
            Some(Err(_)) | None => {}
        }
        if let Some(Err(error)) = &frame
            && !is_malformed(error)
        {
            self.record.transfer().abandon();
        }
        // hyper does not poll again after a body of known length has returned all of it.
        let trailers =
            |frame: &Result<Frame<Bytes>, _>| frame.as_ref().is_ok_and(Frame::is_trailers);
        if frame.as_ref().is_none_or(trailers) || self.is_end_stream() {
            self.record.request_complete();
            self.sending = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.body)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.record.request_truncated();
        }
    }
}

/// Returns whether the app sent invalid bytes. Any other error means that it went away.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}
