//! Layer 15, **Forward**: sends the request over a pooled connection to its destination.
//!
//! The destination that selected the token also selects the connection, so the token cannot reach another host.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, Uri};
use hyper::service::Service;

use crate::config::HttpVersion;
use crate::destination::Scheme;
use crate::error::Error;
use crate::policy::{CredentialGrant, Decision};
use crate::proxy::request::Outbound;
use crate::proxy::request::body::{RequestBody, ResponseBody};
use crate::proxy::service::LayerResult;
use crate::upstream::{ResponseAndCopy, Target, Upstream};

/// The innermost service of the stack.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    upstream: Upstream<RequestBody>,
    /// The HTTP version for requests that do not come in by a route.
    http: HttpVersion,
}

/// The future of [`Forward`]. Boxed because it is large, and every layer above would move it.
#[allow(missing_debug_implementations)]
pub(crate) struct ForwardFuture {
    /// Resolves to the response, and a copy of the request.
    sent: Pin<Box<dyn Future<Output = Result<ResponseAndCopy<RequestBody>, Error>> + Send>>,
    /// Whether a layer above needs the copy to send the request again. The pool may return one for its own retries too.
    keep_copy: bool,
}

// === impl Forward ===

impl Forward {
    /// Creates the service. `http` is the HTTP version for requests that do not come in by a route.
    pub(crate) const fn new(upstream: Upstream<RequestBody>, http: HttpVersion) -> Self {
        Self { upstream, http }
    }
}

impl Service<Outbound> for Forward {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ForwardFuture;

    fn call(&self, outbound: Outbound) -> Self::Future {
        let route = outbound.record.ingress().route();
        let http = route.map_or(self.http, |route| route.http);
        let mut request = outbound.request;
        *request.uri_mut() = Uri::from(outbound.destination.target);
        let target = Target {
            // An upstream proxy can read the requests that it forwards. A request with a token must use a tunnel.
            proxy_may_read: outbound.destination.origin.scheme == Scheme::Http
                && is_without_token(outbound.record.decision()),
            upgrade: false,
            origin: outbound.destination.origin,
            http,
        };
        let (priority, keep_copy) = (outbound.dns_priority, outbound.keep_copy);
        ForwardFuture {
            sent: Box::pin(
                self.upstream
                    .send_copied(&target, priority, keep_copy, request),
            ),
            keep_copy,
        }
    }
}

/// Returns whether it is decided that the destination gets no token.
fn is_without_token(decision: Option<&Decision>) -> bool {
    decision.is_some_and(|decision| !matches!(decision.grant, CredentialGrant::Token(_)))
}

impl Future for ForwardFuture {
    type Output = LayerResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let (response, copy) = ready!(self.sent.as_mut().poll(cx))?;
        let copy = copy.filter(|_| self.keep_copy);
        Poll::Ready(Ok(response.map(|body| ResponseBody::upstream(body, copy))))
    }
}
