//! Layer 4, **Deadline**: `--response-timeout`, from the end of the request to the answer's head: however long an upload
//! takes, the upstream is not late before it has all of it. Off unless asked for: a long job is not late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use crate::error::{Error, ErrorKind};
use crate::proxy::request::Inbound;
use crate::proxy::request::body::Body;
use crate::proxy::service::{Carry, Outcome};

/// Makes [`Deadline`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadlineLayer {
    pub(crate) response: Option<Duration>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    response: Option<Duration>,
}

pin_project! {
    /// The answer, or the end of patience.
    #[allow(missing_debug_implementations)]
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        late: Option<(Late, Duration)>,
    }
}

/// Ends when patience does.
type Late = Pin<Box<dyn Future<Output = ()> + Send>>;

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

    fn call(&self, mut inbound: Inbound) -> Self::Future {
        let late = self.response.map(|after| {
            let passed = inbound.request.body_mut().passed();
            let late: Late = Box::pin(async move {
                if let Some(passed) = passed {
                    passed.await;
                }
                tokio::time::sleep(after).await;
            });
            (late, after)
        });
        DeadlineFuture {
            inner: self.inner.call(inbound),
            late,
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
        if let Some((late, after)) = this.late
            && late.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Error::new(
                ErrorKind::ResponseTimeout,
                format!("no response within {after:?} (--response-timeout)"),
            )));
        }
        Poll::Pending
    }
}
