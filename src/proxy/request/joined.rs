//! Joins small pieces of a body.
//!
//! Each piece is sent as one DATA frame or chunk. Servers close an HTTP/2 connection on which too many small DATA
//! frames are unread, and the requests of other clients on it fail. So a body in one-byte chunks is not passed on as it
//! is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Pieces of less than this are joined with those that follow.
const SMALL: usize = 1024;

/// A piece of this size or more is not extended.
const ENOUGH: usize = 8 * 1024;

/// Polls without data before a small piece is sent: hyper delivers one chunk of HTTP/1.1 per poll of its connection
/// task.
const POLLS: u8 = 1;
/// The same after [`MANY`] small pieces, as that task may run late on another thread.
const POLLS_AFTER_MANY: u8 = 4;
const MANY: u8 = 16;

/// A body whose small pieces are joined. It waits for a few polls, never for a timer.
#[derive(Debug)]
pub(crate) struct Joined<B: Body> {
    body: B,
    /// Allocated for the first small piece. Boxed because the body is moved often.
    held: Option<Box<HeldFrames<B::Error>>>,
}

/// Data that was read and not returned yet.
#[derive(Debug)]
struct HeldFrames<E> {
    /// The first small piece.
    first: Bytes,
    /// All held pieces, if there are several.
    joined: BytesMut,
    /// Polls without data since the last piece.
    waited: u8,
    /// Joined pieces that were returned, up to [`MANY`].
    given: u8,
    /// The frame or error after the data.
    next: Option<Result<Frame<Bytes>, E>>,
}

// === impl HeldFrames ===

impl<E> HeldFrames<E> {
    fn length(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    fn push(&mut self, data: &[u8]) {
        if self.joined.is_empty() {
            self.joined.reserve(self.first.len() + data.len());
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(data);
    }

    /// Returns the held data once no more is joined to it.
    fn poll_joined<B>(&mut self, body: &mut B, cx: &mut Context<'_>) -> Poll<Bytes>
    where
        B: Body<Data = Bytes, Error = E> + Unpin,
    {
        let polls = if self.given < MANY {
            POLLS
        } else {
            POLLS_AFTER_MANY
        };
        while self.next.is_none() && self.length() < ENOUGH && !body.is_end_stream() {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.push(&data);
                        self.waited = 0;
                    }
                    Err(frame) => self.next = Some(Ok(frame)),
                },
                Poll::Ready(Some(Err(error))) => self.next = Some(Err(error)),
                Poll::Ready(None) => break,
                Poll::Pending if self.waited >= polls => break,
                Poll::Pending => {
                    self.waited += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        self.given = MANY.min(self.given + 1);
        let first = std::mem::take(&mut self.first);
        Poll::Ready(if self.joined.is_empty() {
            first
        } else {
            self.joined.split().freeze()
        })
    }
}

impl<E> Default for HeldFrames<E> {
    fn default() -> Self {
        Self {
            first: Bytes::new(),
            joined: BytesMut::new(),
            waited: 0,
            given: 0,
            next: None,
        }
    }
}

// === impl Joined ===

impl<B: Body> Joined<B> {
    pub(crate) const fn new(body: B) -> Self {
        Self { body, held: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Joined<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, held } = &mut *self;
        if let Some(held) = held {
            if held.length() > 0 {
                let joined = ready!(held.poll_joined(body, cx));
                return Poll::Ready(Some(Ok(Frame::data(joined))));
            }
            if let Some(next) = held.next.take() {
                return Poll::Ready(Some(next));
            }
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) if (1..SMALL).contains(&data.len()) && !body.is_end_stream() => {
                let held = held.get_or_insert_default();
                held.first = data;
                held.waited = 0;
                let joined = ready!(held.poll_joined(body, cx));
                Poll::Ready(Some(Ok(Frame::data(joined))))
            }
            Some(Ok(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Ok(Err(frame))) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let nothing = |held: &HeldFrames<B::Error>| held.length() == 0 && held.next.is_none();
        self.held.as_deref().is_none_or(nothing) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut size = self.body.size_hint();
        let held = self.held.as_ref().map_or(0, |held| held.length() as u64);
        if held > 0 {
            if let Some(upper) = size.upper() {
                size.set_upper(upper.saturating_add(held));
            }
            size.set_lower(size.lower().saturating_add(held));
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http::HeaderMap;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    /// What it gives in turn; `None` is a wait.
    struct Script(VecDeque<Option<Frame<Bytes>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(frame) => Poll::Ready(frame.map(Ok)),
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn data(length: usize) -> Option<Frame<Bytes>> {
        Some(Frame::data(vec![b'x'; length].into()))
    }

    async fn lengths(script: impl IntoIterator<Item = Option<Frame<Bytes>>>) -> Vec<Option<usize>> {
        let mut body = Joined::new(Script(script.into_iter().collect()));
        let mut lengths = Vec::new();
        while let Some(frame) = body.frame().await {
            lengths.push(frame.unwrap().data_ref().map(Bytes::len));
        }
        assert!(body.is_end_stream());
        lengths
    }

    #[tokio::test]
    async fn a_body_of_one_byte_chunks_is_joined_into_large_ones() {
        let pieces = lengths((0..20_000).map(|_| data(1))).await;
        assert_eq!(
            pieces,
            [Some(ENOUGH), Some(ENOUGH), Some(20_000 - 2 * ENOUGH)]
        );
    }

    #[tokio::test]
    async fn chunks_are_not_delayed_and_large_ones_are_unchanged() {
        let script = [
            data(3),
            None,
            data(4),
            None,
            None,
            data(2000),
            data(1),
            data(2),
        ];
        assert_eq!(lengths(script).await, [Some(7), Some(2000), Some(3)]);
    }

    #[tokio::test]
    async fn trailers_follow_the_data() {
        let trailers = || Some(Frame::trailers(HeaderMap::new()));
        let script = [data(3), data(4), trailers()];
        assert_eq!(lengths(script).await, [Some(7), None]);
        assert_eq!(lengths([trailers()]).await, [None]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(sizes in prop::collection::vec(prop::option::of(0usize..3000), 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let script = sizes.iter().map(|size| size.and_then(data));
            let read = runtime.block_on(lengths(script));
            prop_assert_eq!(
                read.iter().flatten().sum::<usize>(),
                sizes.iter().flatten().sum::<usize>()
            );
        }
    }
}
