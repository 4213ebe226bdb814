//! Layer 10, **Authorize**: puts the token into exactly one header. With a fresh token nothing is awaited. If there is
//! none and it cannot be fetched, the request fails before the upstream is contacted.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Response};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::Error;
use crate::policy::{
    Decision, Placeholders, Placement, Principal, SkipReason, inject, select_header,
    strip_serverless,
};
use crate::proxy::credentials::CredentialProvider;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::{Authorized, Decided, Injected, Outbound};
use crate::proxy::service::{MaybeBoxed, ProxyService};
use crate::telemetry::Metrics;
use crate::token::{Now, Slot, Token};

const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// The longest wait for the account's e-mail address. Only the access log needs it.
const ACCOUNT_TIMEOUT: Duration = Duration::from_millis(500);

/// The layer that adds the token of a decision.
#[derive(Clone, Debug)]
pub(crate) struct Authorize<S> {
    inner: S,
    provider: Arc<CredentialProvider>,
    metrics: Arc<Metrics>,
}

/// A request before its placeholders were removed. Restored if it gets no token.
struct Original {
    headers: HeaderMap,
    target: PathAndQuery,
}

// === impl Authorize ===

impl<S> Authorize<S> {
    pub(crate) fn layer(
        provider: Arc<CredentialProvider>,
        metrics: Arc<Metrics>,
    ) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            provider: provider.clone(),
            metrics: metrics.clone(),
        })
    }
}

impl<S: ProxyService<Authorized>> Service<Decided> for Authorize<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, decided: Decided) -> Self::Future {
        let (mut outbound, decision, slot) = decided.into_parts();
        let Some(slot) = slot else {
            return MaybeBoxed::inner(self.inner.call(Authorized::without_token(outbound)));
        };
        // The decision for a Google API is final only once the universe is known.
        let universe_known =
            !decision.google_api || self.provider.facts().universe_if_known().is_some();
        let mut original = None;
        // The response to TRACE echoes the request (RFC 9110, 9.3.8). Methods are case-sensitive, but some servers
        // ignore case.
        let placement = if outbound
            .request
            .method()
            .as_str()
            .eq_ignore_ascii_case("TRACE")
        {
            Some(Placement::Skip(SkipReason::Trace))
        } else {
            original = remove_placeholders(
                self.provider.policy().placeholders(),
                &mut outbound,
                universe_known,
            );
            select_header(
                &decision,
                outbound.request.headers(),
                outbound.destination.query(),
            )
        };
        let header = match placement {
            Some(Placement::Inject(header)) => header,
            Some(Placement::Skip(reason)) => {
                self.metrics.skipped(reason);
                outbound.record.set_unauthenticated();
                strip_serverless(&decision, outbound.request.headers_mut());
                return MaybeBoxed::inner(self.inner.call(Authorized {
                    skipped: Some(reason),
                    ..Authorized::without_token(outbound)
                }));
            }
            None => return MaybeBoxed::inner(self.inner.call(Authorized::without_token(outbound))),
        };
        let account = slot.key().principal.account();
        let account_is_known = !outbound.record.logs_every_field()
            || account.is_some()
            || self
                .provider
                .facts()
                .email_if_known(&Principal::Attached)
                .is_some();
        if universe_known
            && account_is_known
            && let Some(token) = slot.ready(Now::at(outbound.record.started().into()))
        {
            outbound.record.set_token(&header, &self.provider);
            return MaybeBoxed::inner(
                self.inner
                    .call(authorized(outbound, decision, slot, token, header)),
            );
        }
        let inner = self.inner.clone();
        let provider = self.provider.clone();
        MaybeBoxed::boxed(async move {
            if decision.google_api {
                // A token of one universe must not be sent to another: the assumed universe must be confirmed first.
                let universe = provider.facts().universe().await?;
                if !outbound.destination.origin.host.is_under(&universe) {
                    if let Some(original) = original {
                        original.restore(&mut outbound);
                    }
                    outbound.record.set_unauthenticated();
                    return inner.call(Authorized::without_token(outbound)).await;
                }
            }
            let token = slot.token().await?;
            if !account_is_known {
                // For the access log only, so an error is ignored.
                let facts = provider.facts().clone();
                // In a task, so that the result is cached even after the timeout.
                let fetched = tokio::spawn(async move { facts.email(&Principal::Attached).await });
                let _ = tokio::time::timeout(ACCOUNT_TIMEOUT, fetched).await;
            }
            outbound.record.set_token(&header, &provider);
            inner
                .call(authorized(outbound, decision, slot, token, header))
                .await
        })
    }
}

/// Removes placeholders. Returns the original, unless it is certain (`universe_known`) that a token is added.
fn remove_placeholders(
    placeholders: &Placeholders,
    outbound: &mut Outbound,
    universe_known: bool,
) -> Option<Box<Original>> {
    let found = placeholders.find(outbound.request.headers(), outbound.destination.query());
    if !found.any() {
        return None;
    }
    let original = (!universe_known).then(|| {
        Box::new(Original {
            headers: outbound.request.headers().clone(),
            target: outbound.destination.target.clone(),
        })
    });
    placeholders.remove_from_headers(outbound.request.headers_mut());
    if found.in_query() {
        outbound.destination.target = placeholders.remove_from_query(&outbound.destination.target);
    }
    original
}

// === impl Original ===

impl Original {
    fn restore(self, outbound: &mut Outbound) {
        *outbound.request.headers_mut() = self.headers;
        outbound.destination.target = self.target;
    }
}

fn authorized(
    mut outbound: Outbound,
    decision: Arc<Decision>,
    slot: Arc<Slot>,
    token: Arc<Token>,
    header: HeaderName,
) -> Authorized {
    let value = token.header(decision.scheme);
    let headers = outbound.request.headers_mut();
    inject(&decision, headers, header.clone(), value);
    if let Some(project) = &decision.quota_project {
        // A project that the app chose is kept.
        headers
            .entry(USER_PROJECT)
            .or_insert_with(|| project.clone());
    }
    Authorized {
        outbound,
        injected: Some(Injected {
            decision,
            slot,
            token,
            header,
        }),
        skipped: None,
    }
}
