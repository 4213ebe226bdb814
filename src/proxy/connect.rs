//! Layer 8, **Connect**: a `CONNECT` becomes a blind tunnel (RFC 9110, 9.3.6). What is inside is the app's and the upstream's
//! alone, so no token can be put into it; where one was due, the log says how to get one.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Response};
use tower::{Layer, Service};

use super::body::{Body, RequestBody};
use super::call::Decided;
use super::step::{Carry, Step};
use super::upgrade::Tunnels;
use crate::error::Error;
use crate::policy::SkipReason;
use crate::telemetry::{Metrics, Seldom, tunnel_without_token};
use crate::upstream::Upstream;

/// Makes [`Connect`].
#[derive(Clone, Debug)]
pub(super) struct ConnectLayer {
    pub(super) upstream: Upstream<RequestBody>,
    pub(super) tunnels: Tunnels,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hints: Arc<Seldom>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Connect<S> {
    inner: S,
    layer: ConnectLayer,
}

impl<S> Layer<S> for ConnectLayer {
    type Service = Connect<S>;

    fn layer(&self, inner: S) -> Connect<S> {
        Connect {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S: Carry<Decided>> Service<Decided> for Connect<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Step<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, decided: Decided) -> Self::Future {
        if decided.call.request.method() == Method::CONNECT {
            Step::later(self.layer.clone().tunnel(decided))
        } else {
            Step::now(self.inner.call(decided))
        }
    }
}

impl ConnectLayer {
    async fn tunnel(self, decided: Decided) -> Result<Response<Body>, Error> {
        let mut call = decided.call;
        let origin = call.destination.origin.clone();
        if decided.slot.is_some() {
            self.metrics.skipped(SkipReason::Tunnel);
            tunnel_without_token(&self.hints, &origin);
        }
        let upstream = self.upstream.tunnel(&origin).await?;
        let downstream = hyper::upgrade::on(&mut call.request);
        self.tunnels
            .spawn(call.exchange, downstream, async move { Some(upstream) });
        Ok(Response::new(Body::empty()))
    }
}
