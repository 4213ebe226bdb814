//! Layer 12, **ResponseTimeout**: `--response-timeout`, from the end of the request's body to the head of the response,
//! so that the duration of an upload does not count. The time to connect does. Off by default.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::{Error, ErrorKind};
use crate::proxy::request::Outbound;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::service::{LayerResult, ProxyService};

/// The layer that limits the time until the head of a response.
#[derive(Clone, Debug)]
pub(crate) struct ResponseTimeout<S> {
    inner: S,
    timeout: Option<Duration>,
}

pin_project! {
    /// The future of [`ResponseTimeout`].
    #[allow(missing_debug_implementations)]
    pub(crate) struct ResponseTimeoutFuture<F> {
        #[pin]
        inner: F,
        timer: Option<(Timer, Duration)>,
    }
}

/// Completes when the timeout expires.
type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

// === impl ResponseTimeout ===

impl<S> ResponseTimeout<S> {
    pub(crate) fn layer(timeout: Option<Duration>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, timeout })
    }
}

impl<S: ProxyService<Outbound>> Service<Outbound> for ResponseTimeout<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseTimeoutFuture<S::Future>;

    fn call(&self, mut outbound: Outbound) -> Self::Future {
        let timer = self.timeout.map(|timeout| {
            let end = outbound.request.body_mut().end();
            let timer: Timer = Box::pin(async move {
                if let Some(end) = end {
                    end.await;
                }
                tokio::time::sleep(timeout).await;
            });
            (timer, timeout)
        });
        ResponseTimeoutFuture {
            inner: self.inner.call(outbound),
            timer,
        }
    }
}

impl<F> Future for ResponseTimeoutFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        if let Some((timer, timeout)) = this.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Error::new(
                ErrorKind::ResponseTimeout,
                format!("no response within {timeout:?} (--response-timeout)"),
            )));
        }
        Poll::Pending
    }
}
