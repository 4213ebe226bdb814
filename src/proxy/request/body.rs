//! Streamed bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::counted::CountedBody;
use super::record::RequestRecord;
use super::trailers::FilteredTrailers;
use crate::error::BoxError;
use crate::proxy::headers::hop_by_hop::Named;
use crate::upstream::{self, BufferedBody, SentRequest};

/// The body of a response.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Content of this length, which the head describes and which is not sent (RFC 9110, 8.6). hyper writes the length
    /// of a 304 over HTTP/1.1 only if there is a body.
    Described(u64),
    /// Streamed from the upstream.
    Upstream {
        /// The content.
        body: FilteredTrailers<upstream::UpstreamBody>,
        /// The copy of the request, if [`Outbound::keep_copy`](super::Outbound::keep_copy) asked for it.
        sent: Option<Box<SentRequest<RequestBody>>>,
    },
    /// A text of the proxy's own.
    Text(Bytes),
}

/// The body of a request.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    /// No body.
    #[default]
    Empty,
    /// Streamed from the app.
    Streamed(CountedBody),
    /// Sent again from the buffer.
    Replayed(Box<BufferedBody<Self>>),
    /// A text of our own, for a token endpoint.
    Text(Full<Bytes>),
}

// === impl RequestBody ===

impl RequestBody {
    /// Returns an app's body. An empty one holds no state.
    pub(crate) fn incoming(body: Incoming, record: &Arc<RequestRecord>) -> Self {
        if http_body::Body::is_end_stream(&body) {
            record.request_complete();
            Self::Empty
        } else {
            Self::Streamed(CountedBody::new(body, record.clone()))
        }
    }

    /// Also removes these trailers from the body.
    pub(crate) fn remove_trailers(&mut self, named: Named) {
        if let Self::Streamed(body) = self {
            body.remove_trailers(named);
        }
    }

    /// Returns a future that completes once an app's body was read to its end or dropped; `None` for other bodies.
    pub(crate) fn end(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        match self {
            Self::Streamed(body) => Some(body.end()),
            Self::Empty | Self::Replayed(_) | Self::Text(_) => None,
        }
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
            Self::Text(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Replayed(body) => body.is_end_stream(),
            Self::Text(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Replayed(body) => body.size_hint(),
            Self::Text(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for RequestBody {
    fn from(text: Bytes) -> Self {
        Self::Text(Full::new(text))
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// Returns a body without content.
    pub(crate) fn empty() -> Self {
        Self::Text(Bytes::new())
    }

    /// Returns the body of an upstream's response, with the copy of the request.
    pub(crate) fn upstream(
        body: upstream::UpstreamBody,
        sent: Option<Box<SentRequest<RequestBody>>>,
    ) -> Self {
        Self::Upstream {
            body: FilteredTrailers::new(body.paced()),
            sent,
        }
    }

    /// Takes the copy of the request.
    pub(crate) fn take_sent(&mut self) -> Option<Box<SentRequest<RequestBody>>> {
        match self {
            Self::Upstream { sent, .. } => sent.take(),
            Self::Described(_) | Self::Text(_) => None,
        }
    }

    /// Also removes these trailers.
    pub(crate) fn remove_trailers(&mut self, named: Named) {
        if let Self::Upstream { body, .. } = self {
            body.remove_named(named);
        }
    }
}

/// Turns an answer of the proxy's own into the answer to HEAD: the length stays, the content goes (RFC 9110, 9.3.2).
/// hyper does that over HTTP/1.1 only.
pub(crate) fn leave_head(headers: &mut HeaderMap, text: &mut Bytes) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    text.clear();
}

/// Returns the next chunk of a text: all of it but one byte, then that byte.
///
/// h2 takes over a chunk larger than its window as soon as the window has room for one byte. The last byte stays here
/// until there is room for all of it, which shows whether the client reads the answer.
pub(crate) fn next_of(text: &mut Bytes) -> Option<Bytes> {
    match text.len() {
        0 => None,
        1 => Some(std::mem::take(text)),
        length => Some(text.split_to(length - 1)),
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Described(_) => Poll::Ready(None),
            Self::Upstream { body, .. } => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Text(text) => Poll::Ready(next_of(text).map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Described(_) => false,
            Self::Upstream { body, .. } => body.is_end_stream(),
            Self::Text(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Described(length) => SizeHint::with_exact(*length),
            Self::Upstream { body, .. } => body.size_hint(),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}
