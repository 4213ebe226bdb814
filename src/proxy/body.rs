//! Bodies: streamed, never gathered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::exchange::Exchange;
use crate::upstream;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How much of a request's body is kept for sending it again after a 401 (RFC 9110, 15.5.2).
const KEPT: usize = 64 * 1024;

/// A response's body: the upstream's own, or a short text of ours.
#[derive(Debug)]
pub enum Body {
    /// Streamed through.
    Upstream(upstream::Body),
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
    /// Streamed through, and kept as long as it is small.
    Copied(Counted, Replay),
    /// Sent again.
    Again(VecDeque<Bytes>, Option<HeaderMap>),
}

/// An app's body, its bytes counted.
#[derive(Debug)]
pub struct Counted {
    body: Incoming,
    exchange: Arc<Exchange>,
    /// Ends when nothing is left to send.
    sending: Option<oneshot::Sender<Infallible>>,
}

/// HTTP/2: the app reset the stream without an error before its end, which hyper takes for the end.
#[derive(Debug, thiserror::Error)]
#[error("the app reset the stream before the end of its request")]
struct Truncated(#[source] h2::Error);

/// What has passed of a body that may have to be sent again; shared by the body and whoever would send it.
#[derive(Clone, Debug, Default)]
pub struct Replay(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    length: usize,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Partial,
    Whole,
    TooLarge,
}

// === impl RequestBody ===

impl RequestBody {
    /// An app's body; nothing is kept of one that is empty.
    pub fn incoming(body: Incoming, exchange: &Arc<Exchange>) -> Self {
        if http_body::Body::is_end_stream(&body) {
            Self::Empty
        } else {
            Self::Streamed(Counted {
                body,
                exchange: exchange.clone(),
                sending: None,
            })
        }
    }

    /// Waits until an app's body has passed, or nobody wants it any more; `None` where there is nothing to wait for.
    pub(super) fn passed(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        match self {
            Self::Streamed(body) | Self::Copied(body, _) => {
                let (sending, passed) = oneshot::channel();
                body.sending = Some(sending);
                Some(async move {
                    let _ = passed.await;
                })
            }
            Self::Empty | Self::Again(..) => None,
        }
    }

    /// Keeps what passes from now on, up to 64 KiB.
    pub(super) fn copied(self) -> (Self, Replay) {
        let copy = Replay::default();
        match self {
            Self::Streamed(body) => {
                // A body that says it is larger is not worth the copy.
                if http_body::Body::size_hint(&body.body).lower() > KEPT as u64 {
                    copy.lock().state = State::TooLarge;
                    (Self::Streamed(body), copy)
                } else {
                    (Self::Copied(body, copy.clone()), copy)
                }
            }
            Self::Empty => {
                copy.lock().state = State::Whole;
                (Self::Empty, copy)
            }
            other => {
                copy.lock().state = State::TooLarge;
                (other, copy)
            }
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
            Self::Copied(body, copy) => {
                let frame = ready!(body.poll_frame(cx));
                copy.lock().note(frame.as_ref(), body.body.is_end_stream());
                Poll::Ready(frame)
            }
            Self::Again(chunks, trailers) => Poll::Ready(match chunks.pop_front() {
                Some(chunk) => Some(Ok(Frame::data(chunk))),
                None => trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) | Self::Copied(body, _) => body.body.is_end_stream(),
            Self::Again(chunks, trailers) => chunks.is_empty() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) | Self::Copied(body, _) => body.body.size_hint(),
            // Trailers need chunks around the body, which one of known length would not have.
            Self::Again(_, Some(_)) => SizeHint::default(),
            Self::Again(chunks, None) => {
                SizeHint::with_exact(chunks.iter().map(|chunk| chunk.len() as u64).sum())
            }
        }
    }
}

// === impl Counted ===

impl Counted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.exchange.received(length as u64);
            }
            None if self.exchange.is_http2() && !http_body::Body::is_end_stream(&self.body) => {
                let truncated = Truncated(h2::Reason::CANCEL.into());
                return Poll::Ready(Some(Err(truncated.into())));
            }
            Some(Err(_)) | None => {}
        }
        if let Some(Err(error)) = &frame
            && !is_malformed(error)
        {
            self.exchange.abandoned();
        }
        // hyper asks no further once a body of known length has given all of it.
        if frame.is_none() || http_body::Body::is_end_stream(&self.body) {
            self.sending = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
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

// === impl Replay ===

impl Replay {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body to send again, where all of it has passed and was kept.
    pub(super) fn replay(&self) -> Option<RequestBody> {
        let mut kept = self.lock();
        if kept.state != State::Whole {
            return None;
        }
        let chunks = std::mem::take(&mut kept.chunks);
        let trailers = kept.trailers.take();
        Some(if chunks.is_empty() && trailers.is_none() {
            RequestBody::Empty
        } else {
            RequestBody::Again(chunks, trailers)
        })
    }
}

impl Kept {
    /// `end`: nothing follows, so that nobody will ask for more.
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>, end: bool) {
        match frame {
            _ if self.state == State::TooLarge => {}
            None => self.state = State::Whole,
            Some(Err(_)) => self.give_up(),
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.length = self.length.saturating_add(chunk.len());
                    if self.length > KEPT {
                        self.give_up();
                    } else {
                        self.chunks.push_back(chunk.clone());
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                if end && self.state == State::Partial {
                    self.state = State::Whole;
                }
            }
        }
    }

    fn give_up(&mut self) {
        *self = Self {
            state: State::TooLarge,
            ..Self::default()
        };
    }
}

// === impl Body ===

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Text(Bytes::new())
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
            Self::Upstream(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            Self::Text(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}
