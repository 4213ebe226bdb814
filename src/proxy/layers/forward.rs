//! Layer 15, **Forward**: the request goes to the pool, addressed to its destination and to nothing else it may still say.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, Uri};
use hyper::service::Service;

use crate::config::HttpVersion;
use crate::error::Error;
use crate::proxy::request::Call;
use crate::proxy::request::body::{Body, RequestBody};
use crate::proxy::service::Outcome;
use crate::upstream::{Answered, Target, Upstream};

/// The end of the stack.
#[derive(Clone, Debug)]
pub struct Forward {
    pub(crate) upstream: Upstream<RequestBody>,
    pub(crate) http: HttpVersion,
}

/// The answer on its way back. Boxed: what a request needs on the way is large, and moves through every layer above.
#[allow(missing_debug_implementations)]
pub struct ForwardFuture {
    sent: Pin<Box<dyn Future<Output = Result<Answered<RequestBody>, Error>> + Send>>,
    keep: bool,
}

impl Service<Call> for Forward {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ForwardFuture;

    fn call(&self, call: Call) -> Self::Future {
        let http = call
            .record
            .ingress()
            .route()
            .map_or(self.http, |route| route.http);
        let priority = call.record.dns_priority();
        let mut request = call.request;
        *request.uri_mut() = Uri::from(call.destination.target);
        let target = Target {
            origin: call.destination.origin,
            http,
        };
        let keep = call.keep;
        ForwardFuture {
            sent: Box::pin(self.upstream.send_copied(&target, priority, keep, request)),
            keep,
        }
    }
}

impl Future for ForwardFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let (response, sent) = ready!(self.sent.as_mut().poll(cx))?;
        let sent = sent.filter(|_| self.keep);
        Poll::Ready(Ok(response.map(|body| Body::upstream(body, sent))))
    }
}
