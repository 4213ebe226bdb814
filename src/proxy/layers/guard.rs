//! Layer 10, **Guard**: pages of other sites do not use a route, dead headers go no further, and where a token is due the
//! call goes over TLS.

use std::sync::Arc;

use http::uri::Authority;
use http::{Response, header};
use hyper::service::Service;
use tower::Layer;

use crate::destination::{Host, Scheme};
use crate::error::{Error, ErrorKind};
use crate::policy::{Grant, remove_dead};
use crate::proxy::headers::browser::{is_cross_site, is_from_host, is_same_origin};
use crate::proxy::request::Decided;
use crate::proxy::request::body::Body;
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// Makes [`Guard`].
#[derive(Clone, Debug)]
pub(crate) struct GuardLayer {
    pub(crate) allowed_hosts: Arc<[Host]>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    inner: S,
    allowed_hosts: Arc<[Host]>,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            allowed_hosts: self.allowed_hosts.clone(),
        }
    }
}

impl<S: ProxyService<Decided>> Service<Decided> for Guard<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, mut decided: Decided) -> Self::Future {
        let call = &mut decided.call;
        let through_route = call.record.ingress().route().is_some();
        let headers = call.request.headers();
        // Normalize has let the Host pass.
        let host = || match headers.get(header::HOST) {
            Some(host) => host.to_str().ok(),
            None => call.request.uri().authority().map(Authority::as_str),
        };
        if through_route
            && is_cross_site(headers, &self.allowed_hosts)
            && !is_same_origin(headers)
            && !is_from_host(headers, host())
        {
            return MaybeBoxed::rejected(Error::new(
                ErrorKind::CrossSite,
                "a page of another site may not call this route: if it is yours, allow it with --allowed-host",
            ));
        }
        remove_dead(call.request.headers_mut());
        let plaintext = call.destination.origin.scheme == Scheme::Http;
        if plaintext
            && matches!(decided.decision.grant, Grant::Token(_))
            && !decided.decision.plaintext
        {
            call.destination.origin = call.destination.origin.upgraded();
            call.over_tls = true;
        }
        MaybeBoxed::inner(self.inner.call(decided))
    }
}
