//! Layer 14, **RewriteLocation**: a `Location` that points to a route's upstream comes back pointing to the route, and one that
//! points to a service that was called by its name to that name, so that the app's next call passes through here too. So does
//! a redirect to the `https` twin of what the app called by `http`: a tunnel would keep the token out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use crate::destination::{Destination, Origin, Scheme};
use crate::error::Error;
use crate::proxy::request::Call;
use crate::proxy::request::body::Body;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{Outcome, ProxyService};

/// Makes [`RewriteLocation`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RewriteLocationLayer;

/// See the module.
#[derive(Clone, Debug)]
pub struct RewriteLocation<S> {
    inner: S,
}

pin_project! {
    /// The answer on its way back.
    #[derive(Debug)]
    pub struct RewriteLocationFuture<F> {
        #[pin]
        inner: F,
        called: Option<Called>,
    }
}

/// What the app called, and what that stands for.
#[derive(Debug)]
struct Called {
    record: Arc<RequestRecord>,
    /// None or no host at all on a unix socket.
    host: Option<HeaderValue>,
    origin: Origin,
    /// Only redirects count: elsewhere `Location` names a resource, and by its real URL.
    redirects_only: bool,
}

impl<S> Layer<S> for RewriteLocationLayer {
    type Service = RewriteLocation<S>;

    fn layer(&self, inner: S) -> RewriteLocation<S> {
        RewriteLocation { inner }
    }
}

impl<S: ProxyService<Call>> Service<Call> for RewriteLocation<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = RewriteLocationFuture<S::Future>;

    fn call(&self, call: Call) -> Self::Future {
        let stands_for_another = call.named || call.record.ingress().route().is_some();
        let called = (stands_for_another || call.over_tls).then(|| {
            let request = &call.request;
            let host = match request.headers().get(header::HOST) {
                Some(host) => Some(host.clone()),
                None => request
                    .uri()
                    .authority()
                    .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()),
            };
            Called {
                record: call.record.clone(),
                host,
                origin: call.destination.origin.clone(),
                redirects_only: !stands_for_another,
            }
        });
        RewriteLocationFuture {
            inner: self.inner.call(call),
            called,
        }
    }
}

impl<F> Future for RewriteLocationFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(called) = this.called
            && (response.status().is_redirection() || !called.redirects_only)
            && let Some(location) = response.headers().get(header::LOCATION)
            && let Some(here) = location.to_str().ok().and_then(|l| called.relocated(l))
        {
            response.headers_mut().insert(header::LOCATION, here);
        }
        Poll::Ready(Ok(response))
    }
}

// === impl Called ===

impl Called {
    fn relocated(&self, location: &str) -> Option<HeaderValue> {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let called = host.and_then(|host| Origin::from_authority(Scheme::Http, host).ok());
        let host = host.filter(|_| called.is_some());
        let (prefix, base) = match self.record.ingress().route() {
            Some(route) => (&*route.route.prefix, route.route.upstream.path()),
            None => ("", ""),
        };
        // Differs from `origin` where a service was called by its name, which answers only over this proxy.
        let named = called.filter(|_| self.record.ingress().route().is_none());
        let upstream = (&self.origin, named.as_ref());
        relocated(location, prefix, base, upstream, host)
    }
}

/// The location as the app must call it; `None` where it is to stay as it is. What the app calls `prefix` at `host` is `base`
/// at `upstream`, by either of its names; without a host the location is a path.
fn relocated(
    location: &str,
    prefix: &str,
    base: &str,
    (upstream, named): (&Origin, Option<&Origin>),
    host: Option<&str>,
) -> Option<HeaderValue> {
    let base = base.trim_end_matches('/');
    let (path, fragment) = match location.find('#') {
        Some(at) => location.split_at(at),
        None => (location, ""),
    };
    if path.starts_with('/') && !path.starts_with("//") {
        // A path alone points here already, unless prefix and base path differ.
        let rest = under(path, base)?;
        return (base != prefix)
            .then(|| HeaderValue::from_str(&format!("{prefix}{rest}{fragment}")).ok())?;
    }
    let destination = if path.starts_with("//") {
        Destination::parse(&format!("{}:{path}", upstream.scheme)).ok()?
    } else {
        Destination::parse(path).ok()?
    };
    let origin = destination.origin.upgraded();
    let is_upstream =
        origin == upstream.upgraded() || named.is_some_and(|named| origin == named.upgraded());
    if destination.userinfo || !is_upstream {
        return None;
    }
    let rest = under(destination.target.as_str(), base)?;
    let here = match host {
        Some(host) => format!("http://{host}{prefix}{rest}{fragment}"),
        // A path alone is right whatever the client calls this place.
        None if prefix.is_empty() && !rest.starts_with('/') => format!("/{rest}{fragment}"),
        None => format!("{prefix}{rest}{fragment}"),
    };
    HeaderValue::from_str(&here).ok()
}

/// What follows `base`, by whole segments.
fn under<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(base)?;
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(location: &str, listen_prefix: &str, upstream: &str) -> Option<String> {
        let upstream = Destination::parse(upstream).unwrap();
        let (base, origin) = (upstream.path(), &upstream.origin);
        relocated(
            location,
            listen_prefix,
            base,
            (origin, None),
            Some("localhost:8081"),
        )
        .map(|value| value.to_str().unwrap().into())
    }

    #[test]
    fn without_a_host_a_location_is_a_path() {
        for (upstream, prefix, location, here) in [
            ("https://a.run.app", "", "https://a.run.app/x?y#z", "/x?y#z"),
            ("https://a.run.app", "", "https://a.run.app", "/"),
            ("https://a.run.app/v1", "", "https://a.run.app/v1?q", "/?q"),
            ("https://a.run.app/v1", "/b", "https://a.run.app/v1", "/b"),
        ] {
            let upstream = Destination::parse(upstream).unwrap();
            let relocated = relocated(
                location,
                prefix,
                upstream.path(),
                (&upstream.origin, None),
                None,
            );
            assert_eq!(relocated.unwrap(), here, "{location}");
        }
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
