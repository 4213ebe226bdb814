//! Layer 11, **RetryUnauthorized**: a 401 from the upstream makes the token suspect. If a fetch returns another token
//! and the request can be sent again, it is sent once more. Otherwise the app gets the 401. A 403 is never retried.
//!
//! The layer also counts and logs rejections: each 401 and 403 to a token, a redirect by Identity-Aware Proxy to a
//! sign-in page, and a 401 or 403 to a request without a token ([`Unauthenticated`]).

mod unauthenticated;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode, Uri, header};
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use self::unauthenticated::Unauthenticated;
use crate::destination::Destination;
use crate::diagnostics::AuthRejection;
use crate::dns::Priority;
use crate::error::Error;
use crate::header_lookup;
use crate::policy::{CredentialName, Principal, TokenKind, inject};
use crate::proxy::headers::iap::is_of_iap;
use crate::proxy::request::body::{RequestBody, ResponseBody};
use crate::proxy::request::record::RequestRecord;
use crate::proxy::request::{Authorized, Injected, Outbound};
use crate::proxy::service::{LayerResult, ProxyService};
use crate::telemetry::{Metrics, RateLimiter, auth_rejected};
use crate::token::Facts;
use crate::upstream::SentRequest;

/// The layer that retries a request after a 401.
#[derive(Clone, Debug)]
pub(crate) struct RetryUnauthorized<S> {
    // One reference: each request holds it, for its retry.
    shared: Arc<RetryDeps<S>>,
}

#[derive(Debug)]
struct RetryDeps<S> {
    inner: S,
    metrics: Arc<Metrics>,
    facts: Facts,
    credential: CredentialName,
    hints: Arc<RateLimiter>,
}

pin_project! {
    /// The future of [`RetryUnauthorized`].
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub(crate) enum RetryUnauthorizedFuture<S, F> {
        /// Waits for the first response.
        First {
            #[pin]
            inner: F,
            retry: Option<Box<RetryContext<S>>>,
            unauthenticated: Option<Unauthenticated>,
        },
        /// The first response was a 401 or 403: fetches another token and sends the request again, if it can.
        Second { future: Pin<Box<dyn Future<Output = LayerResult> + Send>> },
    }
}

/// What is needed to send a request again, besides its copy.
#[allow(missing_debug_implementations)]
pub(crate) struct RetryContext<S> {
    shared: Arc<RetryDeps<S>>,
    injected: Injected,
    record: Arc<RequestRecord>,
    destination: Destination,
    by_service_name: bool,
    upgraded_to_tls: bool,
    /// The app's connection, if the request is for an upgrade.
    upgrade: Option<OnUpgrade>,
    dns_priority: Priority,
    /// Names the host that the app called, if there is no `Host`.
    uri: Option<Uri>,
}

// === impl RetryUnauthorized ===

impl<S> RetryUnauthorized<S> {
    pub(crate) fn layer(
        metrics: Arc<Metrics>,
        facts: Facts,
        credential: CredentialName,
        hints: Arc<RateLimiter>,
    ) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            shared: Arc::new(RetryDeps {
                inner,
                metrics: metrics.clone(),
                facts: facts.clone(),
                credential: credential.clone(),
                hints: hints.clone(),
            }),
        })
    }
}

impl<S: ProxyService<Outbound>> Service<Authorized> for RetryUnauthorized<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RetryUnauthorizedFuture<S, S::Future>;

    fn call(&self, authorized: Authorized) -> Self::Future {
        let Authorized {
            mut outbound,
            injected,
            skipped,
        } = authorized;
        let unauthenticated = injected.is_none().then(|| Unauthenticated {
            record: outbound.record.clone(),
            hints: self.shared.hints.clone(),
            skipped,
        });
        let retry = injected.map(|injected| {
            outbound.keep_copy = true;
            Box::new(RetryContext::new(self.shared.clone(), injected, &outbound))
        });
        RetryUnauthorizedFuture::First {
            inner: self.shared.inner.call(outbound),
            retry,
            unauthenticated,
        }
    }
}

impl<S, F> Future for RetryUnauthorizedFuture<S, F>
where
    S: ProxyService<Outbound>,
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        loop {
            match self.as_mut().project() {
                Projected::First {
                    inner,
                    retry,
                    unauthenticated,
                } => {
                    let mut response = ready!(inner.poll(cx))?;
                    // The copy is freed here unless it is needed.
                    let sent = response.body_mut().take_sent();
                    let status = response.status();
                    if is_rejection(status) {
                        if let Some(retry) = retry.take() {
                            let future = Box::pin(retry.handle_rejection(response, sent));
                            self.set(Self::Second { future });
                            continue;
                        }
                        if let Some(unauthenticated) = unauthenticated {
                            unauthenticated.rejected(status);
                        }
                    } else if let Some(retry) = retry
                        && status.is_redirection()
                    {
                        retry.report(&response);
                    }
                    return Poll::Ready(Ok(response));
                }
                Projected::Second { future } => return future.as_mut().poll(cx),
            }
        }
    }
}

// === impl RetryContext ===

impl<S> RetryContext<S> {
    fn new(shared: Arc<RetryDeps<S>>, injected: Injected, outbound: &Outbound) -> Self {
        let has_host = header_lookup::has(outbound.request.headers(), &header::HOST);
        Self {
            shared,
            injected,
            record: outbound.record.clone(),
            destination: outbound.destination.clone(),
            by_service_name: outbound.by_service_name,
            upgraded_to_tls: outbound.upgraded_to_tls,
            upgrade: outbound
                .wants_upgrade
                .then(|| outbound.request.extensions().get::<OnUpgrade>().cloned())
                .flatten(),
            dns_priority: outbound.dns_priority,
            uri: (!has_host).then(|| outbound.request.uri().clone()),
        }
    }
}

impl<S: ProxyService<Outbound>> RetryContext<S> {
    async fn handle_rejection(
        mut self: Box<Self>,
        rejection: Response<ResponseBody>,
        sent: Option<Box<SentRequest<RequestBody>>>,
    ) -> LayerResult {
        self.report(&rejection);
        if rejection.status() != StatusCode::UNAUTHORIZED {
            return Ok(rejection);
        }
        let Some(request) = sent.and_then(|sent| sent.into_request()) else {
            // This request cannot be sent again, but the next one needs the new token.
            self.injected.slot.start_replacement(&self.injected.token);
            return Ok(rejection);
        };
        let Some(token) = self
            .injected
            .slot
            .fetch_replacement(&self.injected.token)
            .await
        else {
            return Ok(rejection);
        };
        // The connection cannot be reused while the response is unread.
        drop(rejection);
        let mut request = request.map(|body| {
            body.map_or(RequestBody::Empty, |body| {
                RequestBody::Replayed(Box::new(body))
            })
        });
        let value = token.header(self.injected.decision.scheme);
        inject(
            &self.injected.decision,
            request.headers_mut(),
            self.injected.header.clone(),
            value,
        );
        if let Some(uri) = self.uri.take() {
            *request.uri_mut() = uri;
        }
        let wants_upgrade = self.upgrade.is_some();
        if let Some(upgrade) = self.upgrade.take() {
            request.extensions_mut().insert(upgrade);
        }
        let outbound = Outbound {
            request,
            record: self.record.clone(),
            destination: self.destination.clone(),
            by_service_name: self.by_service_name,
            wants_upgrade,
            upgraded_to_tls: self.upgraded_to_tls,
            dns_priority: self.dns_priority,
            keep_copy: false,
        };
        let response = self.shared.inner.call(outbound).await?;
        self.report(&response);
        Ok(response)
    }

    /// Counts a rejection, and logs once a minute what to do about it. A redirect to Google's sign-in page is a
    /// rejection too.
    fn report(&self, response: &Response<ResponseBody>) {
        let status = response.status();
        let iap = is_of_iap(response);
        if is_rejection(status) {
            self.shared.metrics.auth_rejected(status);
        } else if !(iap && status.is_redirection()) {
            return;
        }
        let shared = self.shared.clone();
        let origin = self.destination.origin.clone();
        let header = self.injected.header.clone();
        let key = self.injected.slot.key().clone();
        let trace = self.record.trace();
        // In a task: the account may have to be fetched, and the caller does not wait for it.
        tokio::spawn(async move {
            let account = shared.facts.email(&key.principal).await.ok();
            let project = shared.facts.project_id_if_known();
            let holder = shared.facts.email_if_known(&Principal::Attached);
            let credential = shared.credential.held_by(holder);
            let may_be_narrow = status == StatusCode::FORBIDDEN
                && matches!(key.kind, TokenKind::Access { .. })
                && !credential.is_file();
            let machine_scopes = match may_be_narrow {
                true => shared.facts.scopes(&key.principal).await.ok(),
                false => None,
            };
            let rejection = AuthRejection {
                origin: &origin,
                status,
                iap,
                project: project.as_deref(),
                header: &header,
                key: &key,
                // A rule may name an account whose address its source does not know.
                account: account.as_deref().or_else(|| key.principal.account()),
                machine_scopes: machine_scopes.as_deref(),
            };
            auth_rejected(&shared.hints, &rejection, &credential, trace);
            let recent = shared.metrics.recent();
            recent.rejected(&rejection, &credential);
        });
    }
}

fn is_rejection(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
