//! A request's body that can be sent again where the upstream says that it has processed nothing of it (RFC 9113, 8.7).
//!
//! It is copied as it passes, up to 64 KiB. What has not passed comes back when hyper drops the body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::outgoing::RequestBody;
use crate::chunks::Chunks;

/// How much is copied.
const COPIED: usize = 64 * 1024;

/// A body to send: the caller's, or the one of an earlier try.
#[derive(Debug)]
pub(super) enum Payload<B> {
    First(B),
    Again(Box<Passed<B>>),
}

/// What has passed of a body, and the rest of it.
#[derive(Debug)]
pub(super) struct Passed<B> {
    chunks: Chunks,
    trailers: Option<HeaderMap>,
    rest: Option<B>,
    /// All of its bytes, where that was known from the start.
    exact: Option<u64>,
}

/// Copies a body as it passes.
#[derive(Debug)]
pub(super) struct Copying<B> {
    passed: Passed<B>,
    ended: bool,
    way: oneshot::Sender<Passed<B>>,
}

/// The copy, once hyper is done with the body.
pub(super) type Copy<B> = oneshot::Receiver<Passed<B>>;

// === impl Payload ===

impl<B: RequestBody> Default for Payload<B> {
    fn default() -> Self {
        Self::First(B::default())
    }
}

impl<B: RequestBody> Payload<B> {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let passed = match self {
            Self::First(body) => return Pin::new(body).poll_frame(cx),
            Self::Again(passed) => passed,
        };
        if let Some(chunk) = passed.chunks.pop() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(rest) = &mut passed.rest {
            if let Some(frame) = ready!(Pin::new(rest).poll_frame(cx)) {
                return Poll::Ready(Some(frame));
            }
            passed.rest = None;
        }
        Poll::Ready(passed.trailers.take().map(Frame::trailers).map(Ok))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::First(body) => body.is_end_stream(),
            Self::Again(passed) => {
                passed.chunks.is_empty()
                    && passed.trailers.is_none()
                    && passed.rest.as_ref().is_none_or(B::is_end_stream)
            }
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::First(body) => body.size_hint(),
            // The same as before, so that the head is.
            Self::Again(passed) => passed
                .exact
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

// === impl Copying ===

impl<B> Copying<B> {
    /// Begins to copy a body, unless it says that it is larger than what is copied.
    pub(super) fn of(size: &SizeHint) -> Option<(Box<Self>, Copy<B>)> {
        if size.lower() > COPIED as u64 {
            return None;
        }
        let (way, copy) = oneshot::channel();
        let passed = Passed {
            chunks: Chunks::default(),
            trailers: None,
            rest: None,
            exact: size.exact(),
        };
        let copying = Self {
            passed,
            ended: false,
            way,
        };
        Some((Box::new(copying), copy))
    }

    /// Takes a frame in. Returns false where no copy can be had, or nobody wants one.
    pub(super) fn take<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>, end: bool) -> bool {
        let passed = &mut self.passed;
        match frame {
            None => self.ended = true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    passed.chunks.push(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    passed.trailers = Some(trailers.clone());
                    self.ended = true;
                }
            }
        }
        self.ended |= end;
        passed.chunks.length() <= COPIED && !self.way.is_closed()
    }

    /// hyper is done with the body, of which this much has not passed.
    pub(super) fn finish(self, rest: Option<Payload<B>>) {
        let mut passed = self.passed;
        match rest.filter(|_| !self.ended) {
            None => {}
            Some(Payload::First(body)) => passed.rest = Some(body),
            Some(Payload::Again(left)) => {
                passed.chunks.append(left.chunks);
                passed.trailers = left.trailers;
                passed.rest = left.rest;
            }
        }
        // Where nobody waits for it any more, it is not needed.
        let _ = self.way.send(passed);
    }
}
