//! Copies of requests that can be sent again: after the upstream reports that it processed nothing (RFC 9113, 8.7), and
//! after a 401 (RFC 9110, 15.5.2).
//!
//! There is one copy of a request. Its body is copied as it is sent, up to 64 KiB. The rest comes back when hyper drops
//! the body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::cancellable_body::{CancellableBody, SendableBody};
use crate::chunks::Chunks;

/// The maximum number of copied bytes.
const COPIED: usize = 64 * 1024;

/// A body to send: the caller's, or the copy from an earlier attempt.
#[derive(Debug)]
pub(super) enum Payload<B> {
    Original(B),
    Copied(Box<BufferedBody<B>>),
}

/// The copy of a request that was sent.
#[derive(Debug)]
pub(crate) struct SentRequest<B> {
    head: Request<()>,
    pub(super) body: SentBody<B>,
}

/// The copy of a request's body.
#[derive(Debug)]
pub(super) enum SentBody<B> {
    Empty,
    /// The body is too large.
    Unavailable,
    Copied(oneshot::Receiver<BufferedBody<B>>),
    /// No part of the body was sent.
    Unsent(B),
}

/// A body that is sent again: the copied part, then the rest.
#[derive(Debug)]
pub(crate) struct BufferedBody<B> {
    chunks: Chunks,
    trailers: Option<HeaderMap>,
    rest: Option<B>,
    /// The exact length, if it was known from the start.
    exact: Option<u64>,
}

/// Copies a body as it is sent.
#[derive(Debug)]
pub(super) struct BodyCopier<B> {
    copied: BufferedBody<B>,
    ended: bool,
    sender: oneshot::Sender<BufferedBody<B>>,
}

// === impl Payload ===

impl<B: SendableBody> Default for Payload<B> {
    fn default() -> Self {
        Self::Original(B::default())
    }
}

impl<B: SendableBody> Payload<B> {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self {
            Self::Original(body) => Pin::new(body).poll_frame(cx),
            Self::Copied(copied) => Pin::new(&mut **copied).poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Original(body) => body.is_end_stream(),
            Self::Copied(copied) => copied.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Original(body) => body.size_hint(),
            Self::Copied(copied) => copied.size_hint(),
        }
    }
}

// === impl SentRequest ===

impl<B: SendableBody> SentRequest<B> {
    /// Copies a request that is about to be sent, and its body as it is sent.
    pub(super) fn of(request: &mut Request<CancellableBody<B>>) -> Self {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        // The extensions include the case of header names.
        *head.extensions_mut() = request.extensions().clone();
        Self {
            head,
            body: request.body_mut().copy(),
        }
    }

    /// Returns the request, if its body is empty, was not begun, or was copied completely.
    pub(crate) fn into_request(self) -> Option<Request<Option<BufferedBody<B>>>> {
        let body = match self.body {
            SentBody::Empty => None,
            SentBody::Unavailable => return None,
            SentBody::Copied(mut copy) => Some(copy.try_recv().ok()?),
            SentBody::Unsent(body) => Some(BufferedBody::unsent(body)),
        };
        Some(self.head.map(|()| body))
    }

    /// Returns whether the request has no body.
    pub(super) const fn is_bare(&self) -> bool {
        matches!(self.body, SentBody::Empty)
    }

    /// Returns the request with this body.
    pub(super) fn with(self, body: Payload<B>) -> Request<Payload<B>> {
        self.head.map(|()| body)
    }

    /// Splits the copy, because the copy of the body arrives later.
    pub(super) fn split(self) -> (Request<()>, SentBody<B>) {
        (self.head, self.body)
    }
}

// === impl BufferedBody ===

impl<B: SendableBody> BufferedBody<B> {
    fn unsent(body: B) -> Self {
        Self {
            chunks: Chunks::default(),
            trailers: None,
            exact: body.size_hint().exact(),
            rest: Some(body),
        }
    }
}

impl<B: SendableBody> Body for BufferedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if let Some(chunk) = this.chunks.pop() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(rest) = &mut this.rest {
            if let Some(frame) = ready!(Pin::new(rest).poll_frame(cx)) {
                return Poll::Ready(Some(frame));
            }
            this.rest = None;
        }
        Poll::Ready(this.trailers.take().map(Frame::trailers).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // Equal to the first attempt, so that the head is equal.
        self.exact.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

// === impl BodyCopier ===

impl<B> BodyCopier<B> {
    /// Begins to copy a body, unless its declared length exceeds the limit.
    pub(super) fn of(size: &SizeHint) -> Option<(Box<Self>, oneshot::Receiver<BufferedBody<B>>)> {
        if size.lower() > COPIED as u64 {
            return None;
        }
        let (sender, copy) = oneshot::channel();
        let copied = BufferedBody {
            chunks: Chunks::default(),
            trailers: None,
            rest: None,
            exact: size.exact(),
        };
        let copier = Self {
            copied,
            ended: false,
            sender,
        };
        Some((Box::new(copier), copy))
    }

    /// Copies a frame. Returns false if a copy is not possible or no longer wanted.
    pub(super) fn record<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>, end: bool) -> bool {
        let copied = &mut self.copied;
        match frame {
            None => self.ended = true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    copied.chunks.push(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    copied.trailers = Some(trailers.clone());
                    self.ended = true;
                }
            }
        }
        self.ended |= end;
        copied.chunks.length() <= COPIED && !self.sender.is_closed()
    }

    /// Completes the copy when hyper drops the body. `rest` was not sent.
    pub(super) fn finish(self, rest: Payload<B>) {
        let mut copied = self.copied;
        match rest {
            _ if self.ended => {}
            Payload::Original(body) => copied.rest = Some(body),
            Payload::Copied(left) => {
                copied.chunks.append(left.chunks);
                copied.trailers = left.trailers;
                copied.rest = left.rest;
            }
        }
        // If the receiver is gone, the copy is not needed.
        let _ = self.sender.send(copied);
    }
}
