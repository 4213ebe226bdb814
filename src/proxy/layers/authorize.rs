//! Layer 11, **Authorize**: the token from its slot into exactly one header. With a fresh token nothing is awaited; without
//! any the request ends here, before the upstream is contacted.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Response};
use hyper::service::Service;
use tower::Layer;

use crate::error::Error;
use crate::policy::{Decision, Placeholders, Placement, Principal, SkipReason, inject, place};
use crate::proxy::credentials::Decider;
use crate::proxy::request::body::Body;
use crate::proxy::request::{Call, Decided};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::telemetry::Metrics;
use crate::token::{Now, Slot, Token};

const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// How long a call waits for the account's name, where the access log is to have it.
const ACCOUNT_PATIENCE: Duration = Duration::from_millis(500);

/// Makes [`Authorize`].
#[derive(Clone, Debug)]
pub(crate) struct AuthorizeLayer {
    pub(crate) decider: Arc<Decider>,
    pub(crate) metrics: Arc<Metrics>,
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
    /// Why it goes without, where one was due.
    pub skipped: Option<SkipReason>,
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

/// What a request with a placeholder was, for the case that it goes without a token.
struct Original {
    headers: HeaderMap,
    target: PathAndQuery,
}

impl Authorized {
    const fn without(call: Call) -> Self {
        Self {
            call,
            injected: None,
            skipped: None,
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

impl<S: ProxyService<Authorized>> Service<Decided> for Authorize<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, decided: Decided) -> Self::Future {
        let Decided {
            mut call,
            decision,
            slot,
        } = decided;
        let Some(slot) = slot else {
            return MaybeBoxed::inner(self.inner.call(Authorized::without(call)));
        };
        let sure = !decision.google_api || self.decider.instance().universe_if_known().is_some();
        let mut original = None;
        // The answer to TRACE is an echo of what the upstream received (RFC 9110, 9.3.8). Methods are case-sensitive, but not
        // every server keeps to that.
        let placement = if call.request.method().as_str().eq_ignore_ascii_case("TRACE") {
            Some(Placement::Skip(SkipReason::Trace))
        } else {
            original = remove_placeholders(self.decider.policy().placeholders(), &mut call, sure);
            place(&decision, call.request.headers(), call.destination.query())
        };
        let header = match placement {
            Some(Placement::Inject(header)) => header,
            Some(Placement::Skip(reason)) => {
                self.metrics.skipped(reason);
                call.record.set_unauthenticated();
                return MaybeBoxed::inner(self.inner.call(Authorized {
                    skipped: Some(reason),
                    ..Authorized::without(call)
                }));
            }
            None => return MaybeBoxed::inner(self.inner.call(Authorized::without(call))),
        };
        let account = slot.key().principal.account();
        let is_named = !call.record.is_logged_in_full()
            || account.is_some()
            || self
                .decider
                .instance()
                .email_if_known(&Principal::Attached)
                .is_some();
        if sure
            && is_named
            && let Some(token) = slot.ready(Now::at(call.record.started().into()))
        {
            call.record.carries(&header, self.decider.instance());
            return MaybeBoxed::inner(
                self.inner
                    .call(authorized(call, decision, slot, token, header)),
            );
        }
        let inner = self.inner.clone();
        let decider = self.decider.clone();
        MaybeBoxed::boxed(async move {
            if decision.google_api {
                // No token of one universe goes to another: the start's guess must be confirmed first.
                let universe = decider.instance().universe().await?;
                if !call.destination.origin.host.is_under(&universe) {
                    if let Some(original) = original {
                        original.restore(&mut call);
                    }
                    call.record.set_unauthenticated();
                    return inner.call(Authorized::without(call)).await;
                }
            }
            let token = slot.token().await?;
            if !is_named {
                // For the access log, which can do without.
                let instance = decider.instance().clone();
                // In a task, so that a failure is remembered though nobody waits for it any more.
                let asked = tokio::spawn(async move { instance.email(&Principal::Attached).await });
                let _ = tokio::time::timeout(ACCOUNT_PATIENCE, asked).await;
            }
            call.record.carries(&header, decider.instance());
            inner
                .call(authorized(call, decision, slot, token, header))
                .await
        })
    }
}

/// Removes what stands for no credential. Returns what it changed where it is not `sure` that a token goes in.
fn remove_placeholders(
    placeholders: &Placeholders,
    call: &mut Call,
    sure: bool,
) -> Option<Box<Original>> {
    let found = placeholders.find(call.request.headers(), call.destination.query());
    if !found.any() {
        return None;
    }
    let original = (!sure).then(|| {
        Box::new(Original {
            headers: call.request.headers().clone(),
            target: call.destination.target.clone(),
        })
    });
    placeholders.remove_from_headers(call.request.headers_mut());
    if found.in_query() {
        call.destination.target = placeholders.remove_from_query(&call.destination.target);
    }
    original
}

// === impl Original ===

impl Original {
    fn restore(self, call: &mut Call) {
        *call.request.headers_mut() = self.headers;
        call.destination.target = self.target;
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
        skipped: None,
    }
}
