//! Layer 9, **RejectCrossSite**: rejects requests of web pages from other sites on routes, and removes headers that
//! must not reach the upstream.

use std::sync::Arc;

use http::uri::Authority;
use http::{Response, header};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::Host;
use crate::error::{Error, ErrorKind};
use crate::policy::strip_redacted;
use crate::proxy::headers::browser::{is_cross_site, is_from_host, is_same_origin};
use crate::proxy::request::Decided;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// The layer that rejects requests from web pages of other sites.
#[derive(Clone, Debug)]
pub(crate) struct RejectCrossSite<S> {
    inner: S,
    allowed_hosts: Arc<[Host]>,
}

// === impl RejectCrossSite ===

impl<S> RejectCrossSite<S> {
    pub(crate) fn layer(allowed_hosts: Arc<[Host]>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            allowed_hosts: allowed_hosts.clone(),
        })
    }
}

impl<S: ProxyService<Decided>> Service<Decided> for RejectCrossSite<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, mut decided: Decided) -> Self::Future {
        let through_route = decided.record.ingress().route().is_some();
        let headers = decided.request.headers();
        // Normalize has checked Host.
        let host = || match headers.get(header::HOST) {
            Some(host) => host.to_str().ok(),
            None => decided.request.uri().authority().map(Authority::as_str),
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
        strip_redacted(decided.request.headers_mut());
        MaybeBoxed::inner(self.inner.call(decided))
    }
}
