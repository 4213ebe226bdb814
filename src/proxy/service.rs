//! The future that most layers share: go on at once, go on after a wait, or refuse.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use hyper::service::Service;
use pin_project_lite::pin_project;

use crate::error::Error;
use crate::proxy::request::body::Body;

/// What every layer comes to.
pub(super) type Outcome = Result<Response<Body>, Error>;

/// A service of this stack: whatever it takes, it answers with a response or an [`Error`].
pub trait Carry<R>:
    Service<R, Response = Response<Body>, Error = Error, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<R, S> Carry<R> for S where
    S: Service<R, Response = Response<Body>, Error = Error, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

pin_project! {
    /// The next layer's future now or later, or none at all.
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub enum Step<F> {
        /// Nothing to wait for: the next layer's own future, unboxed.
        Now { #[pin] future: F },
        /// Something must be awaited first.
        Later { future: Pin<Box<dyn Future<Output = Outcome> + Send>> },
        /// The request ends here.
        Refused { error: Option<Error> },
    }
}

impl<F> Step<F> {
    pub(super) fn now(future: F) -> Self {
        Self::Now { future }
    }

    pub(super) fn later(future: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self::Later {
            future: Box::pin(future),
        }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self::Refused { error: Some(error) }
    }
}

impl<F> Future for Step<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self.project() {
            Projected::Now { future } => future.poll(cx),
            Projected::Later { future } => future.as_mut().poll(cx),
            Projected::Refused { error } => error
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}
