//! Layer 15, **Send**: the request goes to the pool, addressed to its destination and to nothing else it may still say.

use std::future::Future;
use std::pin::Pin;

use http::{Response, Uri};
use hyper::service::Service;

use super::body::{Body, RequestBody};
use super::call::Call;
use super::step::Outcome;
use crate::config::HttpVersion;
use crate::error::Error;
use crate::upstream::{Target, Upstream};

/// The end of the stack.
#[derive(Clone, Debug)]
pub struct Send {
    pub(super) upstream: Upstream<RequestBody>,
    pub(super) http: HttpVersion,
}

impl Service<Call> for Send {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Outcome> + std::marker::Send>>;

    fn call(&self, call: Call) -> Self::Future {
        let upstream = self.upstream.clone();
        let http = call
            .exchange
            .entrance()
            .route()
            .map_or(self.http, |route| route.http);
        Box::pin(async move {
            let mut request = call.request;
            *request.uri_mut() = Uri::from(call.destination.target);
            let target = Target {
                origin: call.destination.origin,
                http,
            };
            let response = upstream.send(&target, request).await?;
            Ok(response.map(Body::Upstream))
        })
    }
}
