//! Layer 4, **Deadline**: `--response-timeout`, from the request's head to the answer's. Off unless asked for: a
//! server-sent stream or a long job is not late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service};

use super::body::Body;
use super::call::Inbound;
use super::step::{Carry, Outcome};
use crate::error::{Error, ErrorKind};

/// Makes [`Deadline`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineLayer {
    pub(super) response: Option<Duration>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    response: Option<Duration>,
}

pin_project! {
    /// The answer, or the end of patience.
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        late: Option<(Pin<Box<Sleep>>, Duration)>,
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            response: self.response,
        }
    }
}

impl<S: Carry<Inbound>> Service<Inbound> for Deadline<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        DeadlineFuture {
            inner: self.inner.call(inbound),
            late: self
                .response
                .map(|after| (Box::pin(tokio::time::sleep(after)), after)),
        }
    }
}

impl<F> Future for DeadlineFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        if let Some((sleep, after)) = this.late
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Error::new(
                ErrorKind::ResponseTimeout,
                format!("no response within {after:?} (--response-timeout)"),
            )));
        }
        Poll::Pending
    }
}
