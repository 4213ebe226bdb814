//! Bodies: streamed, never gathered.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::proxy::headers::hop_by_hop::Named;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::request::trailers::FilteredTrailers;
use crate::upstream::{self, BufferedBody, SentRequest};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response's body: the upstream's own, or a short text of ours.
#[derive(Debug)]
pub enum Body {
    /// Streamed through.
    Upstream {
        /// The upstream's own.
        body: FilteredTrailers<upstream::Body>,
        /// The request that it answers, if it was to be kept.
        sent: Option<Box<SentRequest<RequestBody>>>,
    },
    /// Ours.
    Text(Bytes),
}

/// A request's body on its way upstream.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// Streamed through, and counted.
    Streamed(Counted),
    /// Sent again.
    Replayed(Box<BufferedBody<Self>>),
}

/// An app's body, its bytes counted.
#[derive(Debug)]
pub struct Counted {
    body: FilteredTrailers<Incoming>,
    record: Arc<RequestRecord>,
    /// Ends when nothing is left to send.
    sending: Option<oneshot::Sender<Infallible>>,
}

/// HTTP/2: the app reset the stream without an error before its end, which hyper takes for the end.
#[derive(Debug, thiserror::Error)]
#[error("the app reset the stream before the end of its request")]
struct Truncated;

// === impl RequestBody ===

impl RequestBody {
    /// An app's body; nothing is kept of one that is empty.
    pub fn incoming(body: Incoming, record: &Arc<RequestRecord>) -> Self {
        if http_body::Body::is_end_stream(&body) {
            record.is_whole();
            Self::Empty
        } else {
            Self::Streamed(Counted {
                body: FilteredTrailers::new(body),
                record: record.clone(),
                sending: None,
            })
        }
    }

    /// Removes these trailers too, once they come.
    pub(crate) fn remove_trailers(&mut self, named: Named) {
        if let Self::Streamed(body) = self {
            body.body.remove_named(named);
        }
    }

    /// Waits until an app's body has passed, or nobody wants it any more; `None` where there is nothing to wait for.
    pub(crate) fn passed(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let Self::Streamed(body) = self else {
            return None;
        };
        let (sending, passed) = oneshot::channel();
        body.sending = Some(sending);
        Some(async move {
            let _ = passed.await;
        })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => body.poll_frame(cx),
            Self::Replayed(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Replayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Replayed(body) => body.size_hint(),
        }
    }
}

// === impl Counted ===

impl Counted {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.content(data);
                }
            }
            None if self.record.is_http2() && !self.is_end_stream() => {
                self.record.abandoned();
                self.sending = None;
                return Poll::Ready(Some(Err(Truncated.into())));
            }
            Some(Err(_)) | None => {}
        }
        if let Some(Err(error)) = &frame
            && !is_malformed(error)
        {
            self.record.abandoned();
        }
        // hyper asks no further once a body of known length has given all of it.
        let trailers =
            |frame: &Result<Frame<Bytes>, _>| frame.as_ref().is_ok_and(Frame::is_trailers);
        if frame.as_ref().is_none_or(trailers) || self.is_end_stream() {
            self.record.is_whole();
            self.sending = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.record.truncated();
        }
    }
}

/// The app is there and sends what is no body; else it has gone.
fn is_malformed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}

// === impl Body ===

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Text(Bytes::new())
    }

    /// An upstream's, with the request that it answers.
    pub(crate) fn upstream(
        body: upstream::Body,
        sent: Option<Box<SentRequest<RequestBody>>>,
    ) -> Self {
        Self::Upstream {
            body: FilteredTrailers::new(body.paced()),
            sent,
        }
    }

    /// Takes the copy of the request out.
    pub(crate) fn take_sent(&mut self) -> Option<Box<SentRequest<RequestBody>>> {
        match self {
            Self::Upstream { sent, .. } => sent.take(),
            Self::Text(_) => None,
        }
    }

    /// Removes these trailers too, once they come.
    pub(crate) fn remove_trailers(&mut self, named: Named) {
        if let Self::Upstream { body, .. } = self {
            body.remove_named(named);
        }
    }
}

/// Leaves of an answer of ours to HEAD its head alone (RFC 9110, 9.3.2): hyper does that over HTTP/1.1 only.
pub fn leave_head(headers: &mut HeaderMap, text: &mut Bytes) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    text.clear();
}

/// The next part of a text of ours: all of it but one byte, then that.
///
/// A chunk that is larger than the HTTP/2 window is h2's as soon as the window has room for one byte. The last byte stays
/// with us until there is room for all, so that an answer which is not read can be told from one which is.
pub fn next_of(text: &mut Bytes) -> Option<Bytes> {
    match text.len() {
        0 => None,
        1 => Some(std::mem::take(text)),
        length => Some(text.split_to(length - 1)),
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Upstream { body, .. } => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Text(text) => Poll::Ready(next_of(text).map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream { body, .. } => body.is_end_stream(),
            Self::Text(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream { body, .. } => body.size_hint(),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}
