//! Layer 5, **ResolveService**: replaces the name of a service by the origin where the service answers. Rules, audience
//! and certificate apply to that origin.

use std::sync::Arc;

use http::{Method, Response};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::{Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::policy::{InvalidService, ServiceName};
use crate::proxy::credentials::CredentialProvider;
use crate::proxy::ingress::IngressKind;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::{Addressed, Located};
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// The layer that replaces the name of a service.
#[derive(Clone, Debug)]
pub(crate) struct ResolveService<S> {
    inner: S,
    provider: Arc<CredentialProvider>,
}

// === impl ResolveService ===

impl<S> ResolveService<S> {
    pub(crate) fn layer(
        provider: Arc<CredentialProvider>,
    ) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            provider: provider.clone(),
        })
    }

    /// Returns the service that the forward proxy's URL or the route names.
    fn service(&self, addressed: &Addressed) -> Option<Result<ServiceName, InvalidService>> {
        match &addressed.record.ingress().kind {
            IngressKind::Route(route) => route.route.service.clone().map(Ok),
            IngressKind::Forward(_) => self.provider.policy().service(&addressed.destination),
            IngressKind::Intercepted(origin) if origin.scheme == Scheme::Http => {
                self.provider.policy().service(&addressed.destination)
            }
            IngressKind::Intercepted(_) | IngressKind::NoRoute => None,
        }
    }
}

impl<S: ProxyService<Located>> Service<Addressed> for ResolveService<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, addressed: Addressed) -> Self::Future {
        let service = match self.service(&addressed) {
            None => return self.call_inner(addressed, None),
            Some(Ok(service)) => service,
            Some(Err(error)) => return rejected(&addressed, bad(error.to_string())),
        };
        if addressed.request.method() == Method::CONNECT {
            if addressed.destination.origin.scheme == Scheme::Http {
                // Each request inside the tunnel is resolved by itself.
                return self.call_inner(addressed, None);
            }
            return rejected(
                &addressed,
                bad(format!(
                    "{service} is a service name, for which there is no certificate: write http://{service}/, and the \
                     call goes out over TLS"
                )),
            );
        }
        if let Some(located) = self.provider.known_location(&service) {
            return self.go_to(addressed, located);
        }
        let this = self.clone();
        MaybeBoxed::boxed(async move {
            let located = this.provider.fetch_location(&service).await;
            this.go_to(addressed, located).await
        })
    }
}

impl<S: ProxyService<Located>> ResolveService<S> {
    fn go_to(&self, addressed: Addressed, located: Result<Origin, Error>) -> MaybeBoxed<S::Future> {
        match located {
            Ok(origin) => self.call_inner(addressed, Some(origin)),
            Err(error) => rejected(&addressed, error),
        }
    }

    /// Passes the request on; `service`: the origin of the service that it names.
    fn call_inner(&self, addressed: Addressed, service: Option<Origin>) -> MaybeBoxed<S::Future> {
        let mut located = Located {
            request: addressed.request,
            record: addressed.record,
            destination: addressed.destination,
            by_service_name: service.is_some(),
        };
        if let Some(origin) = service {
            located.destination.origin = origin;
        }
        MaybeBoxed::inner(self.inner.call(located))
    }
}

fn rejected<F>(addressed: &Addressed, error: Error) -> MaybeBoxed<F> {
    addressed.record.set_undecided(&addressed.destination);
    MaybeBoxed::rejected(error)
}

fn bad(detail: String) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}
