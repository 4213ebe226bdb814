//! Layer 11, **Authorize**: the token from its slot into exactly one header. With a fresh token nothing is awaited; without
//! any the request ends here, before the upstream is contacted.

use std::sync::Arc;

use http::{HeaderName, Response};
use hyper::service::Service;
use tower::Layer;

use super::body::Body;
use super::call::{Call, Decided};
use super::decide::Decider;
use super::step::{Carry, Step};
use crate::error::Error;
use crate::policy::{Decision, Placement, SkipReason, inject, place};
use crate::telemetry::Metrics;
use crate::token::{Now, Slot, Token};

const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// Makes [`Authorize`].
#[derive(Clone, Debug)]
pub(super) struct AuthorizeLayer {
    pub(super) decider: Arc<Decider>,
    pub(super) metrics: Arc<Metrics>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Authorize<S> {
    inner: S,
    decider: Arc<Decider>,
    metrics: Arc<Metrics>,
}

/// A request that carries what it is due.
#[derive(Debug)]
pub struct Authorized {
    /// The request.
    pub call: Call,
    /// Our token in it; `None` where it goes without.
    pub injected: Option<Injected>,
}

/// Which token was put where, so that it can be replaced.
#[derive(Debug)]
pub struct Injected {
    /// What was decided.
    pub decision: Arc<Decision>,
    /// Where tokens for it come from.
    pub slot: Arc<Slot>,
    /// The one that was sent.
    pub token: Arc<Token>,
    /// The header that carries it.
    pub header: HeaderName,
}

impl Authorized {
    const fn without(call: Call) -> Self {
        Self {
            call,
            injected: None,
        }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            inner,
            decider: self.decider.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl<S: Carry<Authorized>> Service<Decided> for Authorize<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Step<S::Future>;

    fn call(&self, decided: Decided) -> Self::Future {
        let Decided {
            call,
            decision,
            slot,
        } = decided;
        // The answer to TRACE is an echo of what the upstream received (RFC 9110, 9.3.8).
        let placement = match slot {
            // Methods are case-sensitive, but not every server keeps to that.
            Some(_) if call.request.method().as_str().eq_ignore_ascii_case("TRACE") => {
                Some(Placement::Skip(SkipReason::Trace))
            }
            _ => place(&decision, call.request.headers(), call.destination.query()),
        };
        let (slot, header) = match (slot, placement) {
            (Some(slot), Some(Placement::Inject(header))) => (slot, header),
            (_, Some(Placement::Skip(reason))) => {
                self.metrics.skipped(reason);
                call.exchange.goes_bare();
                return Step::now(self.inner.call(Authorized::without(call)));
            }
            _ => return Step::now(self.inner.call(Authorized::without(call))),
        };
        let sure = !decision.google_api || self.decider.instance().universe_if_known().is_some();
        if sure && let Some(token) = slot.ready(Now::at(call.exchange.started().into())) {
            return Step::now(
                self.inner
                    .call(authorized(call, decision, slot, token, header)),
            );
        }
        let inner = self.inner.clone();
        let decider = self.decider.clone();
        Step::later(async move {
            if decision.google_api {
                // No token of one universe goes to another: the start's guess must be confirmed first.
                let universe = decider.instance().universe().await?;
                if !call.destination.origin.host.is_under(&universe) {
                    call.exchange.goes_bare();
                    return inner.call(Authorized::without(call)).await;
                }
            }
            let token = slot.token().await?;
            inner
                .call(authorized(call, decision, slot, token, header))
                .await
        })
    }
}

fn authorized(
    mut call: Call,
    decision: Arc<Decision>,
    slot: Arc<Slot>,
    token: Arc<Token>,
    header: HeaderName,
) -> Authorized {
    let value = token.header(decision.scheme);
    let headers = call.request.headers_mut();
    inject(&decision, headers, header.clone(), value);
    if let Some(project) = &decision.quota_project {
        // The app's own choice of a project stands.
        headers
            .entry(USER_PROJECT)
            .or_insert_with(|| project.clone());
    }
    Authorized {
        call,
        injected: Some(Injected {
            decision,
            slot,
            token,
            header,
        }),
    }
}
