//! A request body that fails once its response is no longer wanted.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::receive_state::SendGuard;
use super::resend::{BodyCopier, Payload, SentBody};
use super::unsent::Unsent;
use crate::error::{BoxError, cause};
use crate::memory::Memory;

/// The error of a request's body. It is found among the sources of hyper's error.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended with an error")]
pub(super) struct Broken(#[source] BoxError);

/// A type that can be sent as a request's body. Its `Default` is the empty body.
pub trait SendableBody:
    Body<Data = Bytes, Error: Into<BoxError>> + Default + Send + Unpin + 'static
{
}

impl<B> SendableBody for B where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Default + Send + Unpin + 'static
{
}

/// Held while the response is awaited or read. Its drop cancels the [`CancellableBody`].
pub(super) type CancelHandle = oneshot::Sender<Infallible>;

/// A request body that is being sent.
///
/// hyper keeps sending a body after its response was dropped. This body fails instead, which closes an HTTP/1.1
/// connection and resets an HTTP/2 stream.
#[derive(Debug)]
pub(super) struct CancellableBody<B> {
    /// `None` for an empty body. Boxed, because hyper's channel to each connection has room for 32 requests or more.
    content: Option<Box<Content<B>>>,
    /// HTTP/1.1: dropped with the body.
    sending: Option<SendGuard>,
}

/// A body that is not empty.
#[derive(Debug)]
struct Content<B> {
    body: BodySource<B>,
    cancel: oneshot::Receiver<Infallible>,
    unsent: Unsent,
    memory: Memory,
    /// A copy, in case the request must be sent again.
    copying: Option<Box<BodyCopier<B>>>,
}

#[derive(Debug)]
enum BodySource<B> {
    Here(Payload<B>),
    /// The body is sent once the upstream asks for it.
    Held(oneshot::Receiver<B>, SizeHint),
    /// The upstream responded without asking for the body.
    Unwanted,
}

/// The response is not wanted, or the app stopped sending. hyper resets an HTTP/2 stream with the code of the source.
#[derive(Debug, thiserror::Error)]
#[error("the request was cancelled")]
struct GivenUp(#[source] h2::Error);

// === impl Broken ===

impl Broken {
    fn given_up() -> Self {
        Self(GivenUp(h2::Reason::CANCEL.into()).into())
    }

    /// Keeps the code with which the app reset its stream. Any other end is a cancellation.
    fn new(error: BoxError) -> Self {
        let reset = |cause: &h2::Error| cause.is_reset() && cause.is_remote();
        if cause(&*error, reset).is_some() {
            return Self(error);
        }
        Self::given_up()
    }
}

// === impl CancellableBody ===

impl<B: SendableBody> CancellableBody<B> {
    /// Wraps a body. An empty body needs no handle.
    pub(super) fn new(body: Payload<B>, memory: &Memory) -> (Self, Option<CancelHandle>) {
        let mut wrapped = Self {
            content: None,
            sending: None,
        };
        if body.is_end_stream() {
            return (wrapped, None);
        }
        let (held, cancel) = oneshot::channel();
        wrapped.content = Some(Box::new(Content {
            body: BodySource::Here(body),
            cancel,
            unsent: Unsent::default(),
            memory: memory.clone(),
            copying: None,
        }));
        (wrapped, Some(held))
    }

    /// Copies the body as it is sent, unless it is too large.
    pub(super) fn copy(&mut self) -> SentBody<B> {
        let Some(content) = &mut self.content else {
            return SentBody::Empty;
        };
        match BodyCopier::of(&content.size_hint()) {
            Some((copying, copy)) => {
                content.copying = Some(copying);
                SentBody::Copied(copy)
            }
            None => SentBody::Unavailable,
        }
    }

    /// Drops `sending` with this body.
    pub(super) fn mark_end(&mut self, sending: SendGuard) {
        self.sending = Some(sending);
    }

    /// Takes the body out, unless it is empty. It is sent when it comes back by the channel.
    pub(super) fn hold(&mut self) -> Option<(B, oneshot::Sender<B>)> {
        let content = self.content.as_mut()?;
        let BodySource::Here(Payload::Original(body)) = &mut content.body else {
            return None;
        };
        let (sender, coming) = oneshot::channel();
        let length = body.size_hint();
        let body = std::mem::take(body);
        content.body = BodySource::Held(coming, length);
        Some((body, sender))
    }

    /// Returns the body, unless it is held elsewhere.
    pub(super) fn into_inner(self) -> Option<Payload<B>> {
        let Some(mut content) = self.content else {
            return Some(Payload::default());
        };
        match std::mem::replace(&mut content.body, BodySource::Unwanted) {
            BodySource::Here(body) => Some(body),
            BodySource::Held(mut coming, _) => coming.try_recv().ok().map(Payload::Original),
            BodySource::Unwanted => None,
        }
    }
}

impl<B: SendableBody> Body for CancellableBody<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.content {
            Some(content) => content.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content
            .as_ref()
            .is_none_or(|content| content.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Some(content) => content.size_hint(),
            // hyper would add a length of 0 to a request over HTTP/2 with any but a few methods.
            None => SizeHint::default(),
        }
    }
}

// === impl Content ===

impl<B: SendableBody> Content<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if Pin::new(&mut self.cancel).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(self.reason_of_cancel(cx))));
        }
        ready!(self.unsent.poll_capacity(cx));
        loop {
            match &mut self.body {
                BodySource::Here(body) => {
                    let frame = ready!(body.poll_frame(cx));
                    if let Some(copying) = &mut self.copying
                        && !copying.record(frame.as_ref(), body.is_end_stream())
                    {
                        self.copying = None;
                    }
                    return Poll::Ready(frame.map(|frame| match frame {
                        Ok(frame) => Ok(
                            frame.map_data(|bytes| self.unsent.track(bytes, &self.memory, None)),
                        ),
                        Err(error) => Err(Broken::new(error.into())),
                    }));
                }
                BodySource::Held(coming, _) => match ready!(Pin::new(coming).poll(cx)) {
                    Ok(body) => self.body = BodySource::Here(Payload::Original(body)),
                    Err(_) => self.body = BodySource::Unwanted,
                },
                // An error would abort the response. The handle ends this body with it.
                BodySource::Unwanted => return Poll::Pending,
            }
        }
    }

    /// Returns the app's error, if that is why the response is no longer wanted.
    fn reason_of_cancel(&mut self, cx: &mut Context<'_>) -> Broken {
        match &mut self.body {
            BodySource::Here(body) => match body.poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => Broken::new(error.into()),
                _ => Broken::given_up(),
            },
            BodySource::Held(..) | BodySource::Unwanted => Broken::given_up(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            BodySource::Here(body) => body.is_end_stream(),
            BodySource::Held(..) | BodySource::Unwanted => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            BodySource::Here(body) => body.size_hint(),
            BodySource::Held(_, length) => *length,
            BodySource::Unwanted => SizeHint::default(),
        }
    }
}

impl<B> Drop for Content<B> {
    fn drop(&mut self) {
        // A body that is not here is not copied.
        if let Some(copying) = self.copying.take()
            && let BodySource::Here(rest) = std::mem::replace(&mut self.body, BodySource::Unwanted)
        {
            copying.finish(rest);
        }
    }
}
