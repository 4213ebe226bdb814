//! A request body that fails once its response is no longer wanted.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::receive_state::SendGuard;
use super::resend::{Copying, Payload, SentBody};
use super::unsent::Unsent;
use crate::error::{BoxError, cause};
use crate::memory::Memory;

/// The error of a request's body. It is found among the sources of hyper's error.
#[derive(Debug, thiserror::Error)]
#[error("the request's body failed")]
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
    body: BodySource<B>,
    cancel: Option<oneshot::Receiver<Infallible>>,
    /// `None` for an empty body.
    tracked: Option<(Unsent, Memory)>,
    /// HTTP/1.1: dropped with the body.
    sending: Option<SendGuard>,
    /// A copy, in case the request must be sent again.
    copying: Option<Box<Copying<B>>>,
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
#[error("the request was given up")]
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
        let (held, cancel, tracked) = if body.is_end_stream() {
            (None, None, None)
        } else {
            let (held, cancel) = oneshot::channel();
            let tracked = (Unsent::default(), memory.clone());
            (Some(held), Some(cancel), Some(tracked))
        };
        let body = BodySource::Here(body);
        let body = Self {
            body,
            cancel,
            tracked,
            sending: None,
            copying: None,
        };
        (body, held)
    }

    /// Copies the body as it is sent, unless it is too large.
    pub(super) fn copy(&mut self) -> SentBody<B> {
        if self.is_end_stream() {
            return SentBody::Empty;
        }
        match Copying::of(&self.size_hint()) {
            Some((copying, copy)) => {
                self.copying = Some(copying);
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
        let BodySource::Here(Payload::Original(body)) = &mut self.body else {
            return None;
        };
        if body.is_end_stream() {
            return None;
        }
        let (sender, coming) = oneshot::channel();
        let length = body.size_hint();
        let body = std::mem::take(body);
        self.body = BodySource::Held(coming, length);
        Some((body, sender))
    }

    /// Returns the body, unless it is held elsewhere.
    pub(super) fn into_inner(mut self) -> Option<Payload<B>> {
        match std::mem::replace(&mut self.body, BodySource::Unwanted) {
            BodySource::Here(body) => Some(body),
            BodySource::Held(mut coming, _) => coming.try_recv().ok().map(Payload::Original),
            BodySource::Unwanted => None,
        }
    }
}

impl<B> Drop for CancellableBody<B> {
    fn drop(&mut self) {
        // A body that is not here is not copied.
        if let Some(copying) = self.copying.take()
            && let BodySource::Here(rest) = std::mem::replace(&mut self.body, BodySource::Unwanted)
        {
            copying.finish(rest);
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
        let this = &mut *self;
        if let Some(cancel) = &mut this.cancel
            && Pin::new(cancel).poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Broken::given_up())));
        }
        if let Some((unsent, _)) = &this.tracked {
            ready!(unsent.poll_room(cx));
        }
        loop {
            match &mut this.body {
                BodySource::Here(body) => {
                    let frame = ready!(body.poll_frame(cx));
                    if let Some(copying) = &mut this.copying
                        && !copying.take(frame.as_ref(), body.is_end_stream())
                    {
                        this.copying = None;
                    }
                    return Poll::Ready(frame.map(|frame| match (frame, &mut this.tracked) {
                        (Ok(frame), Some((unsent, memory))) => {
                            Ok(frame.map_data(|bytes| unsent.track(bytes, memory)))
                        }
                        (Ok(frame), None) => Ok(frame),
                        (Err(error), _) => Err(Broken::new(error.into())),
                    }));
                }
                BodySource::Held(coming, _) => match ready!(Pin::new(coming).poll(cx)) {
                    Ok(body) => this.body = BodySource::Here(Payload::Original(body)),
                    Err(_) => this.body = BodySource::Unwanted,
                },
                // An error would abort the response. The handle ends this body with it.
                BodySource::Unwanted => return Poll::Pending,
            }
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
