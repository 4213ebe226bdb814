//! A request's body that may have to be sent replayed, after a 401 (RFC 9110, 15.5.2): it is kept as it passes, or as it
//! is where nothing of it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::chunks::Chunks;
use crate::proxy::request::body::{BoxError, Counted, RequestBody};

/// How much is kept.
const MAX_BUFFERED: usize = 64 * 1024;

/// An app's body that is kept as it passes, as long as it is small.
#[derive(Debug)]
pub struct BufferedBody {
    /// Taken only by its drop.
    body: Option<Counted>,
    copy: Replay,
}

/// What is kept; shared by the body and whoever would send it.
#[derive(Clone, Debug)]
pub(crate) struct Replay(Arc<Mutex<Buffer>>);

#[derive(Debug)]
enum Buffer {
    /// Nothing has passed; the body itself, once it was dropped like that.
    Untouched(Option<Counted>),
    Partial(Passed),
    Whole(Passed),
    /// It was too large, or failed.
    Never,
}

#[derive(Debug, Default)]
struct Passed {
    chunks: Chunks,
    trailers: Option<HeaderMap>,
}

// === impl BufferedBody ===

impl BufferedBody {
    pub(crate) fn new(body: Counted) -> (Self, Replay) {
        let copy = Replay::new(Buffer::Untouched(None));
        let buffered = Self {
            body: Some(body),
            copy: copy.clone(),
        };
        (buffered, copy)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let size = body.size_hint().lower();
        let frame = ready!(body.poll_frame(cx));
        let end = body.is_end_stream();
        let mut kept = self.copy.lock();
        *kept = std::mem::replace(&mut *kept, Buffer::Never).and(frame.as_ref(), size, end);
        drop(kept);
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Counted::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(Counted::size_hint)
            .unwrap_or_default()
    }
}

impl Drop for BufferedBody {
    fn drop(&mut self) {
        if let Buffer::Untouched(body) = &mut *self.copy.lock() {
            *body = self.body.take();
        }
    }
}

// === impl Replay ===

impl Replay {
    fn new(kept: Buffer) -> Self {
        Self(Arc::new(Mutex::new(kept)))
    }

    /// Of a body that is empty.
    pub(crate) fn of_nothing() -> Self {
        Self::new(Buffer::Whole(Passed::default()))
    }

    /// Of a body that cannot be sent replayed.
    pub(crate) fn never() -> Self {
        Self::new(Buffer::Never)
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body to send replayed, where nothing of it has passed, or all of it and was kept.
    pub(crate) fn replay(&self) -> Option<RequestBody> {
        let kept = std::mem::replace(&mut *self.lock(), Buffer::Never);
        match kept {
            Buffer::Untouched(body) => body.map(RequestBody::Streamed),
            Buffer::Whole(passed) if passed.is_empty() => Some(RequestBody::Empty),
            Buffer::Whole(passed) => Some(RequestBody::replayed(passed.chunks, passed.trailers)),
            Buffer::Partial(_) | Buffer::Never => None,
        }
    }
}

// === impl Buffer ===

impl Buffer {
    /// With one frame more of a body of which so many bytes were to come; `end`: nobody will ask for another.
    fn and(self, frame: Option<&Result<Frame<Bytes>, BoxError>>, size: u64, end: bool) -> Self {
        let mut passed = match self {
            // A body that says it is larger is not worth the copy.
            Self::Untouched(_) if size > MAX_BUFFERED as u64 => return Self::Never,
            Self::Untouched(_) => Passed::default(),
            Self::Partial(passed) => passed,
            Self::Whole(_) | Self::Never => return self,
        };
        match frame {
            None => return Self::Whole(passed),
            Some(Err(_)) => return Self::Never,
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    passed.chunks.push(chunk);
                } else if let Some(trailers) = frame.trailers_ref() {
                    passed.trailers = Some(trailers.clone());
                }
            }
        }
        if passed.chunks.length() > MAX_BUFFERED {
            Self::Never
        } else if end {
            Self::Whole(passed)
        } else {
            Self::Partial(passed)
        }
    }
}

// === impl Passed ===

impl Passed {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none()
    }
}
