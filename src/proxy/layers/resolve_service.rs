//! Layer 6, **ResolveService**: a service's name becomes the place where the service answers. From here on that is the destination,
//! for the rules, the audience and the certificate alike.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use tower::Layer;

use crate::destination::{Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::policy::{InvalidService, ServiceName};
use crate::proxy::credentials::Decider;
use crate::proxy::ingress::IngressKind;
use crate::proxy::request::Call;
use crate::proxy::request::body::Body;
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// Makes [`ResolveService`].
#[derive(Clone, Debug)]
pub(crate) struct ResolveServiceLayer {
    pub(crate) decider: Arc<Decider>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ResolveService<S> {
    inner: S,
    decider: Arc<Decider>,
}

impl<S> Layer<S> for ResolveServiceLayer {
    type Service = ResolveService<S>;

    fn layer(&self, inner: S) -> ResolveService<S> {
        ResolveService {
            inner,
            decider: self.decider.clone(),
        }
    }
}

impl<S: ProxyService<Call>> Service<Call> for ResolveService<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, call: Call) -> Self::Future {
        let service = match self.named(&call) {
            None => return self.go(call),
            Some(Ok(service)) => service,
            Some(Err(error)) => return refused(&call, &error.to_string()),
        };
        if call.request.method() == Method::CONNECT {
            if call.destination.origin.scheme == Scheme::Http {
                // HTTP inside is for the name.
                return self.go(call);
            }
            // What is inside would be sealed for a name that no certificate has.
            let instead = format!(
                "{service} is a service's name, for which there is no certificate: write http://{service}/, and the \
                 call goes out over TLS"
            );
            return refused(&call, &instead);
        }
        if let Some(located) = self.decider.located(&service) {
            return self.arrive(call, located);
        }
        let this = self.clone();
        MaybeBoxed::boxed(async move {
            let located = this.decider.locate(&service).await;
            this.arrive(call, located).await
        })
    }
}

impl<S: ProxyService<Call>> ResolveService<S> {
    /// The service that is meant, by the forward proxy's URL or by the route.
    fn named(&self, call: &Call) -> Option<Result<ServiceName, InvalidService>> {
        match &call.record.ingress().kind {
            IngressKind::Route(route) => route.route.service.clone().map(Ok),
            IngressKind::Forward(_) => self.decider.policy().service(&call.destination),
            IngressKind::Intercepted(origin) if origin.scheme == Scheme::Http => {
                self.decider.policy().service(&call.destination)
            }
            IngressKind::Intercepted(_) | IngressKind::NoRoute => None,
        }
    }

    fn arrive(&self, mut call: Call, located: Result<Origin, Error>) -> MaybeBoxed<S::Future> {
        match located {
            Ok(origin) => {
                call.destination.origin = origin;
                call.named = true;
                self.go(call)
            }
            Err(error) => {
                call.record.goes_to(&call.destination);
                MaybeBoxed::rejected(error)
            }
        }
    }

    fn go(&self, call: Call) -> MaybeBoxed<S::Future> {
        call.record.goes_to(&call.destination);
        MaybeBoxed::inner(self.inner.call(call))
    }
}

fn refused<F>(call: &Call, why: &str) -> MaybeBoxed<F> {
    call.record.goes_to(&call.destination);
    MaybeBoxed::rejected(Error::new(ErrorKind::BadRequest, why))
}
