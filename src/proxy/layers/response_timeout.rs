//! Layer 4, **ResponseTimeout**: `--response-timeout`, from the end of the request to the answer's head: however long an upload
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
use crate::proxy::service::{Outcome, ProxyService};

/// Makes [`ResponseTimeout`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseTimeoutLayer {
    pub(crate) response: Option<Duration>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ResponseTimeout<S> {
    inner: S,
    response: Option<Duration>,
}

pin_project! {
    /// The answer, or the end of patience.
    #[allow(missing_debug_implementations)]
    pub struct ResponseTimeoutFuture<F> {
        #[pin]
        inner: F,
        late: Option<(Late, Duration)>,
    }
}

/// Ends when patience does.
type Late = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S> Layer<S> for ResponseTimeoutLayer {
    type Service = ResponseTimeout<S>;

    fn layer(&self, inner: S) -> ResponseTimeout<S> {
        ResponseTimeout {
            inner,
            response: self.response,
        }
    }
}

impl<S: ProxyService<Inbound>> Service<Inbound> for ResponseTimeout<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseTimeoutFuture<S::Future>;

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
        ResponseTimeoutFuture {
            inner: self.inner.call(inbound),
            late,
        }
    }
}

impl<F> Future for ResponseTimeoutFuture<F>
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
