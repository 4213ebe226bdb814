//! A request's body, which ends early when nobody wants the answer any more.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::io::Sending;
use super::resend::{Copying, Payload, SentBody};
use super::unsent::Unsent;
use crate::error::cause;
use crate::memory::Memory;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The request's body failed; found again among the causes of hyper's error.
#[derive(Debug, thiserror::Error)]
#[error("the request's body failed")]
pub(super) struct Broken(#[source] BoxError);

/// What may be sent as a request's body; its `Default` is the empty body.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<BoxError>> + Default + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Default + Send + Unpin + 'static
{
}

/// Held where the answer is waited for or read; its end stops the [`Outgoing`] body.
pub(super) type Interest = oneshot::Sender<Infallible>;

/// A request's body on its way.
///
/// hyper goes on sending a body whose response nobody reads any more. This one fails instead, which closes an HTTP/1.1
/// connection and resets an HTTP/2 stream.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    body: Source<B>,
    interest: Option<oneshot::Receiver<Infallible>>,
    /// `None` for an empty body.
    tracked: Option<(Unsent, Memory)>,
    /// HTTP/1.1: ends with the body.
    sending: Option<Sending>,
    /// A copy, in case that the request must be sent again.
    copying: Option<Box<Copying<B>>>,
}

#[derive(Debug)]
enum Source<B> {
    Here(Payload<B>),
    /// It comes when the upstream asks for it, if ever.
    Held(oneshot::Receiver<B>, SizeHint),
    /// The upstream has answered in place of asking.
    Unwanted,
}

/// Nobody waits for the answer, or nobody sends the rest. The reason beneath is the one that hyper resets an HTTP/2
/// stream with.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up")]
struct GivenUp(#[source] h2::Error);

// === impl Broken ===

impl Broken {
    fn given_up() -> Self {
        Self(GivenUp(h2::Reason::CANCEL.into()).into())
    }

    /// What the app said when it reset its stream goes on to the upstream; however else it left, it has cancelled.
    fn new(error: BoxError) -> Self {
        let reset = |cause: &h2::Error| cause.is_reset() && cause.is_remote();
        if cause(&*error, reset).is_some() {
            return Self(error);
        }
        Self::given_up()
    }
}

// === impl Outgoing ===

impl<B: RequestBody> Outgoing<B> {
    /// Wraps a body; one that is empty needs nobody to watch over it.
    pub(super) fn new(body: Payload<B>, memory: &Memory) -> (Self, Option<Interest>) {
        let (held, interest, tracked) = if body.is_end_stream() {
            (None, None, None)
        } else {
            let (held, interest) = oneshot::channel();
            let tracked = (Unsent::default(), memory.clone());
            (Some(held), Some(interest), Some(tracked))
        };
        let body = Source::Here(body);
        let outgoing = Self {
            body,
            interest,
            tracked,
            sending: None,
            copying: None,
        };
        (outgoing, held)
    }

    /// Copies the body as it passes, unless it is too large for that.
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

    /// Marks the end of the request when this body is dropped.
    pub(super) fn mark_end(&mut self, sending: Sending) {
        self.sending = Some(sending);
    }

    /// Takes the body out; it is sent when it comes back by the channel. An empty one is not worth it.
    pub(super) fn hold(&mut self) -> Option<(B, oneshot::Sender<B>)> {
        let Source::Here(Payload::First(body)) = &mut self.body else {
            return None;
        };
        if body.is_end_stream() {
            return None;
        }
        let (sender, coming) = oneshot::channel();
        let length = body.size_hint();
        let body = std::mem::take(body);
        self.body = Source::Held(coming, length);
        Some((body, sender))
    }

    /// The body, unless it is held elsewhere.
    pub(super) fn into_inner(mut self) -> Option<Payload<B>> {
        match std::mem::replace(&mut self.body, Source::Unwanted) {
            Source::Here(body) => Some(body),
            Source::Held(mut coming, _) => coming.try_recv().ok().map(Payload::First),
            Source::Unwanted => None,
        }
    }
}

impl<B> Drop for Outgoing<B> {
    fn drop(&mut self) {
        // A body that is not here is not copied.
        if let Some(copying) = self.copying.take()
            && let Source::Here(rest) = std::mem::replace(&mut self.body, Source::Unwanted)
        {
            copying.finish(rest);
        }
    }
}

impl<B: RequestBody> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(interest) = &mut this.interest
            && Pin::new(interest).poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Broken::given_up())));
        }
        if let Some((unsent, _)) = &this.tracked {
            ready!(unsent.poll_room(cx));
        }
        loop {
            match &mut this.body {
                Source::Here(body) => {
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
                Source::Held(coming, _) => match ready!(Pin::new(coming).poll(cx)) {
                    Ok(body) => this.body = Source::Here(Payload::First(body)),
                    Err(_) => this.body = Source::Unwanted,
                },
                // An error would cut the response off, which may be under way still; the end of it is the end of this.
                Source::Unwanted => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Here(body) => body.is_end_stream(),
            Source::Held(..) | Source::Unwanted => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Here(body) => body.size_hint(),
            Source::Held(_, length) => *length,
            Source::Unwanted => SizeHint::default(),
        }
    }
}
