//! Layer 14, **RewriteLocation**: rewrites a `Location` that points to the upstream, so that the app's next call comes
//! through the proxy again.
//!
//! A location at a route's upstream becomes one at the route, and a location at a service becomes one at the service's
//! name. A redirect from `http` to `https`, after the upgrade to TLS, becomes one to `http`: a tunnel would carry no
//! token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::{Destination, Origin, Scheme};
use crate::error::Error;
use crate::proxy::request::Outbound;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{LayerResult, ProxyService};

/// The layer that rewrites redirects to the upstream.
#[derive(Clone, Debug)]
pub(crate) struct RewriteLocation<S> {
    inner: S,
}

pin_project! {
    /// The future of [`RewriteLocation`].
    #[derive(Debug)]
    pub(crate) struct RewriteLocationFuture<F> {
        #[pin]
        inner: F,
        called: Option<Called>,
    }
}

/// The host that the app called, and the origin that it stands for.
#[derive(Debug)]
struct Called {
    record: Arc<RequestRecord>,
    /// `None`, or not a host, on a unix socket.
    host: Option<HeaderValue>,
    origin: Origin,
    /// Rewrite redirects only. In other responses `Location` names a resource by its URL.
    redirects_only: bool,
}

/// The parts of an absolute or scheme-relative reference (RFC 3986, 4.2 and 4.3).
struct Reference<'a> {
    scheme: Option<&'a [u8]>,
    authority: &'a [u8],
    /// Path, query and fragment.
    target: &'a [u8],
}

// === impl RewriteLocation ===

impl<S> RewriteLocation<S> {
    pub(crate) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(|inner| Self { inner })
    }
}

impl<S: ProxyService<Outbound>> Service<Outbound> for RewriteLocation<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RewriteLocationFuture<S::Future>;

    fn call(&self, outbound: Outbound) -> Self::Future {
        let has_other_name =
            outbound.by_service_name || outbound.record.ingress().route().is_some();
        let called = (has_other_name || outbound.upgraded_to_tls).then(|| {
            let request = &outbound.request;
            let host = match request.headers().get(header::HOST) {
                Some(host) => Some(host.clone()),
                None => request
                    .uri()
                    .authority()
                    .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()),
            };
            Called {
                record: outbound.record.clone(),
                host,
                origin: outbound.destination.origin.clone(),
                redirects_only: !has_other_name,
            }
        });
        RewriteLocationFuture {
            inner: self.inner.call(outbound),
            called,
        }
    }
}

impl<F> Future for RewriteLocationFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(called) = this.called
            && (response.status().is_redirection() || !called.redirects_only)
            && let Some(location) = response.headers().get(header::LOCATION)
            && let Some(here) = called.relocated(location.as_bytes())
        {
            response.headers_mut().insert(header::LOCATION, here);
        }
        Poll::Ready(Ok(response))
    }
}

// === impl Called ===

impl Called {
    fn relocated(&self, location: &[u8]) -> Option<HeaderValue> {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let called = host.and_then(|host| Origin::from_authority(Scheme::Http, host).ok());
        let host = host.filter(|_| called.is_some());
        let (prefix, base) = match self.record.ingress().route() {
            Some(route) => (&*route.route.prefix, route.route.upstream.path()),
            None => ("", ""),
        };
        // Differs from `origin` if the app used a service name, which is valid only through this proxy.
        let named = called.filter(|_| self.record.ingress().route().is_none());
        let upstream = (&self.origin, named.as_ref());
        relocated(location, prefix, base, upstream, host)
    }
}

/// Returns the location as the app must call it; `None` if it stays as it is. The app's `prefix` at `host` stands for
/// `base` at `upstream`, which has one or two names. Without a host the result is a path.
///
/// Only the origin is parsed. The bytes behind it stay as they are, because clients also follow a location that is not
/// a valid URI, for example with a space or UTF-8.
fn relocated(
    location: &[u8],
    prefix: &str,
    base: &str,
    (upstream, named): (&Origin, Option<&Origin>),
    host: Option<&str>,
) -> Option<HeaderValue> {
    let base = base.trim_end_matches('/');
    if location.starts_with(b"/") && !location.starts_with(b"//") {
        let Some(rest) = under(location, base) else {
            // Outside the base path, the route has no path for it. As it stands, it could lead to another route.
            let elsewhere = upstream.to_string();
            return HeaderValue::from_bytes(&[elsewhere.as_bytes(), location].concat()).ok();
        };
        // A path alone already points to the proxy, unless prefix and base path differ.
        return (base != prefix)
            .then(|| HeaderValue::from_bytes(&[prefix.as_bytes(), rest].concat()).ok())?;
    }
    let Reference {
        scheme,
        authority,
        target,
    } = Reference::parse(location)?;
    let scheme = match scheme {
        Some(scheme) => std::str::from_utf8(scheme).ok()?,
        None => upstream.scheme.as_str(),
    };
    let authority = std::str::from_utf8(authority).ok()?;
    let destination = Destination::parse(&format!("{scheme}://{authority}/")).ok()?;
    let origin = &destination.origin;
    // Calls to `http` and `https` have the same upstream only if the proxy adds the TLS.
    let is_upstream = match upstream.scheme {
        Scheme::Http => origin == upstream,
        Scheme::Https => origin.upgraded() == *upstream,
    } || named.is_some_and(|named| origin.upgraded() == named.upgraded());
    if destination.userinfo || !is_upstream {
        return None;
    }
    let slash: &[u8] = if target.starts_with(b"/") { b"" } else { b"/" };
    let target = [slash, target].concat();
    let rest = under(&target, base)?;
    let here = match host {
        Some(host) => format!("http://{host}{prefix}"),
        // A path alone is right whatever the client calls this place.
        None if prefix.is_empty() && !rest.starts_with(b"/") => "/".to_owned(),
        None => prefix.to_owned(),
    };
    HeaderValue::from_bytes(&[here.as_bytes(), rest].concat()).ok()
}

// === impl Reference ===

impl<'a> Reference<'a> {
    fn parse(reference: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = match reference.strip_prefix(b"//") {
            Some(rest) => (None, rest),
            None => {
                let end = reference.iter().position(|byte| *byte == b':')?;
                let (scheme, rest) = reference.split_at_checked(end)?;
                (Some(scheme), rest.strip_prefix(b"://")?)
            }
        };
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        Some(Self {
            scheme,
            authority,
            target,
        })
    }
}

/// Returns the text after `base`, by whole segments.
fn under<'a>(path: &'a [u8], base: &str) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(base.as_bytes())?;
    let whole = matches!(rest.first(), None | Some(b'/' | b'?' | b'#'));
    whole.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(location: &str, listen_prefix: &str, upstream: &str) -> Option<String> {
        let upstream = Destination::parse(upstream).unwrap();
        let (base, origin) = (upstream.path(), &upstream.origin);
        relocated(
            location.as_bytes(),
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
                location.as_bytes(),
                prefix,
                upstream.path(),
                (&upstream.origin, None),
                None,
            );
            assert_eq!(relocated.unwrap(), here, "{location}");
        }
    }

    #[test]
    fn a_location_at_the_upstream_is_rewritten_to_the_route() {
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
        assert_eq!(at("HTTPS://a.run.app").unwrap(), "http://localhost:8081/");
        assert_eq!(
            at("https://a.run.app?y").unwrap(),
            "http://localhost:8081/?y"
        );
        assert_eq!(
            at("https://a.run.app#z").unwrap(),
            "http://localhost:8081/#z"
        );
        for elsewhere in [
            "/x",
            "x",
            "https://b.run.app/x",
            "https://a.run.app:8443/x",
            "https://a.run.app.evil.test/",
            "https://u@a.run.app/",
            "mailto:x@a.run.app",
            "https:/a.run.app/x",
            "https://a.run.app\\@evil.test/",
            "https://a.run.app b/",
            "x?https://a.run.app/",
            "/x#https://a.run.app/",
        ] {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_location_with_a_space_or_utf8_is_rewritten_and_its_bytes_stay() {
        for rest in [
            "/x y",
            "/ä",
            "/x?q=ä b#ö",
            "/a\"<>|\\^`{}",
            "/%zz",
            "/x#a#b",
        ] {
            let location = format!("https://a.run.app{rest}");
            let value = relocated(
                location.as_bytes(),
                "",
                "",
                (
                    &Destination::parse("https://a.run.app").unwrap().origin,
                    None,
                ),
                Some("localhost:8081"),
            );
            let expected = format!("http://localhost:8081{rest}");
            assert_eq!(value.unwrap().as_bytes(), expected.as_bytes());
        }
        let latin1 = relocated(
            b"/v1/caf\xe9",
            "/billing",
            "/v1",
            (
                &Destination::parse("https://a.run.app").unwrap().origin,
                None,
            ),
            None,
        );
        assert_eq!(latin1.unwrap().as_bytes(), b"/billing/caf\xe9");
    }

    #[test]
    fn prefix_and_base_path_are_exchanged() {
        let at = |location| here(location, "/billing", "https://a.run.app/v1");
        assert_eq!(
            at("https://a.run.app/v1/x").unwrap(),
            "http://localhost:8081/billing/x"
        );
        assert_eq!(at("/v1/x?q").unwrap(), "/billing/x?q");
        assert_eq!(at("/v1").unwrap(), "/billing");
        assert_eq!(at("https://a.run.app/other"), None);
    }

    #[test]
    fn a_path_outside_the_base_path_does_not_lead_to_another_route() {
        let at = |location| here(location, "/run", "https://a.run.app/base").unwrap();
        assert_eq!(at("/other?q#f"), "https://a.run.app/other?q#f");
        assert_eq!(at("/basement"), "https://a.run.app/basement");
    }

    #[test]
    fn a_redirect_of_a_plaintext_upstream_to_https_does_not_loop() {
        let at = |location| here(location, "", "http://plain.example");
        assert_eq!(at("https://plain.example/x"), None);
        assert_eq!(at("https://plain.example:80/x"), None);
        assert_eq!(
            at("http://plain.example/x").unwrap(),
            "http://localhost:8081/x"
        );
    }
}
