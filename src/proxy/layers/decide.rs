//! Layer 7, **Decide**: the decision for the destination, and the slot of its token. With it comes the upgrade to TLS:
//! a token is sent over TLS unless the rule says `plaintext=allow`.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::Scheme;
use crate::error::{Error, ErrorKind};
use crate::policy::CredentialGrant;
use crate::proxy::credentials::{CredentialProvider, DecidedCall};
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::{Decided, Stripped};
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// The layer that decides which credential a request gets.
#[derive(Clone, Debug)]
pub(crate) struct Decide<S> {
    inner: S,
    provider: Arc<CredentialProvider>,
}

/// A request that waits for its decision. If it is dropped before, its destination is recorded.
struct UndecidedRequest(Option<Stripped>);

// === impl Decide ===

impl<S> Decide<S> {
    pub(crate) fn layer(
        provider: Arc<CredentialProvider>,
    ) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            provider: provider.clone(),
        })
    }
}

impl<S: ProxyService<Decided>> Service<Stripped> for Decide<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, stripped: Stripped) -> Self::Future {
        let route = stripped.record.ingress().route();
        if let Some(decided) = route.and_then(|route| route.decision.get().cloned()) {
            return self.call_inner(stripped, decided);
        }
        if !self.provider.must_wait_for_universe(&stripped.destination) {
            return self.decide(stripped);
        }
        let this = self.clone();
        MaybeBoxed::boxed(async move {
            let mut waiting = UndecidedRequest(Some(stripped));
            this.provider.wait_for_universe().await;
            match waiting.0.take() {
                Some(stripped) => this.decide(stripped).await,
                None => std::future::pending().await,
            }
        })
    }
}

impl<S: ProxyService<Decided>> Decide<S> {
    fn decide(&self, stripped: Stripped) -> MaybeBoxed<S::Future> {
        let ingress = stripped.record.ingress();
        let decided = ingress.decide(&self.provider, &stripped.destination);
        self.call_inner(stripped, decided)
    }

    fn call_inner(&self, stripped: Stripped, decided: DecidedCall) -> MaybeBoxed<S::Future> {
        let Stripped {
            request,
            record,
            mut destination,
            by_service_name,
            wants_upgrade,
        } = stripped;
        let DecidedCall { decision, slot } = decided;
        // Requests inside a tunnel have decisions of their own, and may have other paths.
        let is_tunnel = request.method() == Method::CONNECT;
        let upgraded_to_tls = destination.origin.scheme == Scheme::Http
            && !is_tunnel
            && matches!(decision.grant, CredentialGrant::Token(_))
            && !decision.plaintext;
        if upgraded_to_tls {
            destination.origin = destination.origin.upgraded();
        }
        record.set_decided(&destination, &decision);
        for note in &decision.notes {
            tracing::debug!(rule = &*decision.rule, "decision: {note}");
        }
        if let CredentialGrant::Deny(reason) = &decision.grant
            && !is_tunnel
        {
            return MaybeBoxed::rejected(Error::new(ErrorKind::Denied, &**reason));
        }
        MaybeBoxed::inner(self.inner.call(Decided {
            request,
            record,
            destination,
            by_service_name,
            wants_upgrade,
            upgraded_to_tls,
            decision,
            slot,
        }))
    }
}

// === impl UndecidedRequest ===

impl Drop for UndecidedRequest {
    fn drop(&mut self) {
        if let Some(stripped) = &self.0 {
            stripped.record.set_undecided(&stripped.destination);
        }
    }
}
