//! The service trait and the future that the layers share.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use super::request::body::ResponseBody;
use crate::error::Error;

/// The result of every layer.
pub(super) type LayerResult = Result<Response<ResponseBody>, Error>;

/// A service of the stack: takes `R`, returns a response or an [`Error`].
pub(crate) trait ProxyService<R>:
    Service<R, Response = Response<ResponseBody>, Error = Error, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<R, S> ProxyService<R> for S where
    S: Service<R, Response = Response<ResponseBody>, Error = Error, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// See [`takes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes<R>(PhantomData<fn(R)>);

/// A layer that does nothing. It compiles only if the layers below it take `R`.
pub(super) const fn takes<R>() -> Takes<R> {
    Takes(PhantomData)
}

pin_project! {
    /// The future of a layer: the next layer's own future where possible, boxed only if the layer must await something
    /// first.
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub(crate) enum MaybeBoxed<F> {
        /// The next layer's future.
        Inner { #[pin] future: F },
        /// A future that awaits something before it calls the next layer, or that does not call it.
        Boxed { future: Pin<Box<dyn Future<Output = LayerResult> + Send>> },
        /// The layer rejected the request.
        Rejected { error: Option<Error> },
    }
}

// === impl Takes ===

impl<R, S: ProxyService<R>> Layer<S> for Takes<R> {
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

// === impl MaybeBoxed ===

impl<F> MaybeBoxed<F> {
    pub(super) fn inner(future: F) -> Self {
        Self::Inner { future }
    }

    pub(super) fn boxed(future: impl Future<Output = LayerResult> + Send + 'static) -> Self {
        Self::Boxed {
            future: Box::pin(future),
        }
    }

    pub(super) fn rejected(error: Error) -> Self {
        Self::Rejected { error: Some(error) }
    }
}

impl<F> Future for MaybeBoxed<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        match self.project() {
            Projected::Inner { future } => future.poll(cx),
            Projected::Boxed { future } => future.as_mut().poll(cx),
            Projected::Rejected { error } => error
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}
