//! A request's body, which ends early when nobody wants the answer any more.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

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
    body: B,
    interest: Option<oneshot::Receiver<Infallible>>,
}

/// Nobody waits for the answer. The reason beneath is the one that hyper resets an HTTP/2 stream with.
#[derive(Debug, thiserror::Error)]
#[error("the response is no longer wanted")]
struct Unwanted(#[source] h2::Error);

// === impl Outgoing ===

impl<B: RequestBody> Outgoing<B> {
    /// Wraps a body; one that is empty needs nobody to watch over it.
    pub(super) fn new(body: B) -> (Self, Option<Interest>) {
        let (held, interest) = if body.is_end_stream() {
            (None, None)
        } else {
            let (held, interest) = oneshot::channel();
            (Some(held), Some(interest))
        };
        (Self { body, interest }, held)
    }

    pub(super) fn into_inner(self) -> B {
        self.body
    }
}

impl<B: RequestBody> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(interest) = &mut self.interest
            && Pin::new(interest).poll(cx).is_ready()
        {
            let unwanted = Unwanted(h2::Reason::CANCEL.into());
            return Poll::Ready(Some(Err(Broken(unwanted.into()))));
        }
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map_err(|error| Broken(error.into()))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
