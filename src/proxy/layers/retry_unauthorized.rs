//! Layer 12, **RetryUnauthorized**: an upstream's 401 to a token of ours makes the token suspect. If a new fetch gives another one
//! and the request can be sent again, it is, once; else the 401 is the answer. A 403 always is.

mod unauthenticated;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode, Uri, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use self::unauthenticated::Unauthenticated;
use crate::destination::Destination;
use crate::error::Error;
use crate::policy::inject;
use crate::proxy::headers::iap::is_of_iap;
use crate::proxy::layers::authorize::{Authorized, Injected};
use crate::proxy::request::Call;
use crate::proxy::request::body::{Body, RequestBody};
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{Outcome, ProxyService};
use crate::telemetry::{AuthRejection, Metrics, Seldom, auth_rejected};
use crate::token::Facts;
use crate::upstream::SentRequest;

/// Makes [`RetryUnauthorized`].
#[derive(Clone, Debug)]
pub(crate) struct RetryUnauthorizedLayer {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) instance: Facts,
    pub(crate) hints: Arc<Seldom>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RetryUnauthorized<S> {
    // Shared as a whole: each request holds it, in case it has to go out again.
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    inner: S,
    layer: RetryUnauthorizedLayer,
}

pin_project! {
    /// The first answer, and perhaps a second.
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub enum RetryUnauthorizedFuture<S, F> {
        /// Waiting for the first answer.
        First { #[pin] inner: F, again: Option<Box<Retry<S>>>, bare: Option<Unauthenticated> },
        /// It was a 401: a new token, and the request once more.
        Second { future: Pin<Box<dyn Future<Output = Outcome> + Send>> },
    }
}

/// All that is needed to send a request once more.
#[allow(missing_debug_implementations)]
pub struct Retry<S> {
    shared: Arc<Shared<S>>,
    injected: Injected,
    record: Arc<RequestRecord>,
    destination: Destination,
    named: bool,
    over_tls: bool,
    /// Where there is no `Host`, it names what the app called.
    uri: Option<Uri>,
}

impl<S> Layer<S> for RetryUnauthorizedLayer {
    type Service = RetryUnauthorized<S>;

    fn layer(&self, inner: S) -> RetryUnauthorized<S> {
        RetryUnauthorized {
            shared: Arc::new(Shared {
                inner,
                layer: self.clone(),
            }),
        }
    }
}

impl<S: ProxyService<Call>> Service<Authorized> for RetryUnauthorized<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = RetryUnauthorizedFuture<S, S::Future>;

    fn call(&self, authorized: Authorized) -> Self::Future {
        let Authorized {
            mut call,
            injected,
            skipped,
        } = authorized;
        let bare = injected.is_none().then(|| Unauthenticated {
            record: call.record.clone(),
            hints: self.shared.layer.hints.clone(),
            skipped,
        });
        let again = injected.map(|injected| {
            // An upgrade can be sent only once.
            call.keep = !call.upgrade;
            let request = &call.request;
            let has_host = request.headers().contains_key(header::HOST);
            Box::new(Retry {
                shared: self.shared.clone(),
                injected,
                record: call.record.clone(),
                destination: call.destination.clone(),
                named: call.named,
                over_tls: call.over_tls,
                uri: (!has_host).then(|| request.uri().clone()),
            })
        });
        RetryUnauthorizedFuture::First {
            inner: self.shared.inner.call(call),
            again,
            bare,
        }
    }
}

impl<S, F> Future for RetryUnauthorizedFuture<S, F>
where
    S: ProxyService<Call>,
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match self.as_mut().project() {
                Projected::First { inner, again, bare } => {
                    let mut response = ready!(inner.poll(cx))?;
                    // The copy is kept no longer than it may be needed.
                    let sent = response.body_mut().take_sent();
                    let status = response.status();
                    if is_rejection(status) {
                        if let Some(again) = again.take() {
                            let future = Box::pin(again.after(response, sent));
                            self.set(Self::Second { future });
                            continue;
                        }
                        if let Some(bare) = bare {
                            bare.rejected(status);
                        }
                    } else if let Some(again) = again
                        && status.is_redirection()
                    {
                        again.note(&response);
                    }
                    return Poll::Ready(Ok(response));
                }
                Projected::Second { future } => return future.as_mut().poll(cx),
            }
        }
    }
}

impl<S: ProxyService<Call>> Retry<S> {
    async fn after(
        mut self: Box<Self>,
        rejection: Response<Body>,
        sent: Option<Box<SentRequest<RequestBody>>>,
    ) -> Outcome {
        self.note(&rejection);
        if rejection.status() != StatusCode::UNAUTHORIZED {
            return Ok(rejection);
        }
        let Some(request) = sent.and_then(|sent| sent.again()) else {
            // The next request is to have the new token; this one cannot use it.
            self.injected.slot.renew(&self.injected.token);
            return Ok(rejection);
        };
        let Some(token) = self.injected.slot.replace(&self.injected.token).await else {
            return Ok(rejection);
        };
        // The connection is of no use with an unread answer on it.
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
        let response = self
            .shared
            .inner
            .call(Call {
                request,
                record: self.record.clone(),
                destination: self.destination.clone(),
                named: self.named,
                over_tls: self.over_tls,
                upgrade: false,
                keep: false,
            })
            .await?;
        self.note(&response);
        Ok(response)
    }

    /// Counts a rejection and says once a minute what to do about it. A redirect to Google's sign-in is one too.
    fn note(&self, response: &Response<Body>) {
        let status = response.status();
        let iap = is_of_iap(response);
        if is_rejection(status) {
            self.shared.layer.metrics.auth_rejected(status);
        } else if !(iap && status.is_redirection()) {
            return;
        }
        let shared = self.shared.clone();
        let origin = self.destination.origin.clone();
        let header = self.injected.header.clone();
        let key = self.injected.slot.key().clone();
        let trace = self.record.trace();
        // The account's name may have to be asked for; the caller does not wait for that.
        tokio::spawn(async move {
            let account = shared.layer.instance.email(&key.principal).await.ok();
            let project = shared.layer.instance.project_id_if_known();
            let rejection = AuthRejection {
                origin: &origin,
                status,
                iap,
                project: project.as_deref(),
                header: &header,
                key: &key,
                account: account.as_deref(),
                trace,
            };
            auth_rejected(&shared.layer.hints, &rejection);
            shared.layer.metrics.recent().rejected(&rejection);
        });
    }
}

fn is_rejection(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
