//! Layer 8, **Decide**: what the destination gets, and the slot that keeps it.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use tower::Layer;

use crate::error::{Error, ErrorKind};
use crate::policy::Grant;
use crate::proxy::credentials::{Decider, Resolved};
use crate::proxy::request::body::Body;
use crate::proxy::request::{Call, Decided};
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// Makes [`Decide`].
#[derive(Clone, Debug)]
pub(crate) struct DecideLayer {
    pub(crate) decider: Arc<Decider>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Decide<S> {
    inner: S,
    decider: Arc<Decider>,
}

// === impl Decide ===

impl<S> Layer<S> for DecideLayer {
    type Service = Decide<S>;

    fn layer(&self, inner: S) -> Decide<S> {
        Decide {
            inner,
            decider: self.decider.clone(),
        }
    }
}

impl<S: ProxyService<Decided>> Service<Call> for Decide<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, call: Call) -> Self::Future {
        let route = call.record.ingress().route();
        if let Some(resolved) = route.and_then(|route| route.decision.get().cloned()) {
            return self.go(call, resolved);
        }
        if !self.decider.must_wait(&call.destination) {
            let resolved = call
                .record
                .ingress()
                .resolve(&self.decider, &call.destination);
            return self.go(call, resolved);
        }
        let this = self.clone();
        MaybeBoxed::boxed(async move {
            this.decider.learn_universe().await;
            let resolved = call
                .record
                .ingress()
                .resolve(&this.decider, &call.destination);
            this.go(call, resolved).await
        })
    }
}

impl<S: ProxyService<Decided>> Decide<S> {
    fn go(&self, call: Call, resolved: Resolved) -> MaybeBoxed<S::Future> {
        let Resolved { decision, slot } = resolved;
        call.record.decided(&decision);
        for note in &decision.notes {
            tracing::debug!(rule = &*decision.rule, "decision: {note}");
        }
        // The path of what comes inside a tunnel may say otherwise: that is for Connect to know.
        let tunnel = call.request.method() == Method::CONNECT;
        if let Grant::Deny(reason) = &decision.grant
            && !tunnel
        {
            return MaybeBoxed::rejected(Error::new(ErrorKind::Denied, &**reason));
        }
        MaybeBoxed::inner(self.inner.call(Decided {
            call,
            decision,
            slot,
        }))
    }
}
