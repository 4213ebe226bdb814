//! Layer 13, **Relocate**: a `Location` that points to a route's upstream comes back pointing to the route, so that the app's
//! next call passes through here too.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use super::body::Body;
use super::call::Call;
use super::exchange::Exchange;
use super::step::{Carry, Outcome};
use crate::config::Route;
use crate::destination::Destination;
use crate::error::Error;

/// Makes [`Relocate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RelocateLayer;

/// See the module.
#[derive(Clone, Debug)]
pub struct Relocate<S> {
    inner: S,
}

pin_project! {
    /// The answer on its way back.
    #[derive(Debug)]
    pub struct RelocateFuture<F> {
        #[pin]
        inner: F,
        called: Option<(Arc<Exchange>, HeaderValue)>,
    }
}

impl<S> Layer<S> for RelocateLayer {
    type Service = Relocate<S>;

    fn layer(&self, inner: S) -> Relocate<S> {
        Relocate { inner }
    }
}

impl<S: Carry<Call>> Service<Call> for Relocate<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = RelocateFuture<S::Future>;

    fn call(&self, call: Call) -> Self::Future {
        let called = call.exchange.entrance().route().and_then(|_| {
            let request = &call.request;
            let host = match request.headers().get(header::HOST) {
                Some(host) => Some(host.clone()),
                None => request
                    .uri()
                    .authority()
                    .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()),
            };
            host.map(|host| (call.exchange.clone(), host))
        });
        RelocateFuture {
            inner: self.inner.call(call),
            called,
        }
    }
}

impl<F> Future for RelocateFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some((exchange, host)) = this.called
            && let Some(route) = exchange.entrance().route()
            && let Some(location) = response.headers().get(header::LOCATION)
            && let Some(here) = location
                .to_str()
                .ok()
                .and_then(|location| relocated(location, &route.route, host.to_str().ok()?))
        {
            response.headers_mut().insert(header::LOCATION, here);
        }
        Poll::Ready(Ok(response))
    }
}

/// The location as the app must call it; `None` where it is to stay as it is.
fn relocated(location: &str, route: &Route, host: &str) -> Option<HeaderValue> {
    let base = route.upstream.path().trim_end_matches('/');
    let (path, fragment) = match location.find('#') {
        Some(at) => location.split_at(at),
        None => (location, ""),
    };
    let prefix = &route.prefix;
    if path.starts_with('/') && !path.starts_with("//") {
        // A path alone points here already, unless prefix and base path differ.
        let rest = under(path, base)?;
        return (base != prefix)
            .then(|| HeaderValue::from_str(&format!("{prefix}{rest}{fragment}")).ok())?;
    }
    let destination = if path.starts_with("//") {
        Destination::parse(&format!("{}:{path}", route.upstream.origin.scheme)).ok()?
    } else {
        Destination::parse(path).ok()?
    };
    if destination.userinfo || destination.origin.upgraded() != route.upstream.origin.upgraded() {
        return None;
    }
    let rest = under(destination.target.as_str(), base)?;
    HeaderValue::from_str(&format!("http://{host}{prefix}{rest}{fragment}")).ok()
}

/// What follows `base`, by whole segments.
fn under<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;
    use crate::policy::Options;

    fn here(location: &str, listen_prefix: &str, upstream: &str) -> Option<String> {
        let route = Route {
            name: "8081".into(),
            listen: Listen::Tcp(([127, 0, 0, 1], 8081).into()),
            prefix: listen_prefix.into(),
            upstream: Destination::parse(upstream).unwrap(),
            options: Options::default(),
            http: None,
        };
        relocated(location, &route, "localhost:8081").map(|value| value.to_str().unwrap().into())
    }

    #[test]
    fn a_location_at_the_upstream_comes_back_here() {
        let upstream = "https://a.run.app";
        let at = |location| here(location, "", upstream);
        assert_eq!(
            at("https://a.run.app/x?y#z").unwrap(),
            "http://localhost:8081/x?y#z"
        );
        assert_eq!(
            at("https://A.run.app.:443/x").unwrap(),
            "http://localhost:8081/x"
        );
        assert_eq!(at("http://a.run.app/x").unwrap(), "http://localhost:8081/x");
        assert_eq!(at("//a.run.app/x").unwrap(), "http://localhost:8081/x");
        for elsewhere in [
            "/x",
            "x",
            "https://b.run.app/x",
            "https://a.run.app:8443/x",
            "https://a.run.app.evil.test/",
            "https://u@a.run.app/",
            "mailto:x@a.run.app",
        ] {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn prefix_and_base_path_change_places() {
        let at = |location| here(location, "/billing", "https://a.run.app/v1");
        assert_eq!(
            at("https://a.run.app/v1/x").unwrap(),
            "http://localhost:8081/billing/x"
        );
        assert_eq!(at("/v1/x?q").unwrap(), "/billing/x?q");
        assert_eq!(at("/v1").unwrap(), "/billing");
        assert_eq!(at("/v10/x"), None);
        assert_eq!(at("https://a.run.app/other"), None);
    }
}
