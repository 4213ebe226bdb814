//! Layer 14, **RewriteLocation**: rewrites a `Location` that points to the upstream, so that the app's next call comes
//! through the proxy again.
//!
//! A location at a route's upstream becomes one at the route, and a location at a service becomes one at the service's
//! name. A path relative to the request is resolved first, because the app's path may have other segments. A redirect
//! from `http` to `https`, after the upgrade to TLS, becomes one to `http`: a tunnel would carry no token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::Entry;
use http::{HeaderValue, Response, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::destination::{Destination, Origin, Scheme, is_under};
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

/// The app's path `prefix` stands for the path `base` at the upstream. Both have no trailing slash.
#[derive(Default)]
struct RoutePaths<'a> {
    prefix: &'a str,
    base: &'a str,
    /// The path of the request at the upstream.
    requested: &'a str,
    /// The prefixes of all routes of the listener.
    listener_prefixes: &'a [String],
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
            && let Entry::Occupied(mut locations) = response.headers_mut().entry(header::LOCATION)
        {
            for location in locations.iter_mut() {
                if let Some(here) = called.relocated(location.as_bytes()) {
                    *location = here;
                }
            }
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
        let paths = match self.record.ingress().route() {
            Some(route) => RoutePaths {
                prefix: &route.route.prefix,
                base: route.route.upstream.path().trim_end_matches('/'),
                requested: self.record.destination().map_or("", Destination::path),
                listener_prefixes: &route.listener_prefixes,
            },
            None => RoutePaths::default(),
        };
        // Differs from `origin` if the app used a service name, which is valid only through this proxy.
        let named = called.filter(|_| self.record.ingress().route().is_none());
        let upstream = (&self.origin, named.as_ref());
        relocated(location, &paths, upstream, host)
    }
}

/// Returns the location as the app must call it; `None` if it stays as it is. The upstream has one or two names. Without
/// a host the result is a path.
///
/// Only the origin is parsed. The bytes behind it stay as they are, because clients also follow a location that is not
/// a valid URI, for example with a space or UTF-8.
fn relocated(
    location: &[u8],
    paths: &RoutePaths<'_>,
    (upstream, named): (&Origin, Option<&Origin>),
    host: Option<&str>,
) -> Option<HeaderValue> {
    let resolved = match paths.are_the_upstreams() {
        true => None,
        false => resolved(paths.requested, location),
    };
    let path = resolved.as_deref().unwrap_or(location);
    if path.starts_with(b"/") && !path.starts_with(b"//") {
        let Some(here) = paths.here(path).filter(|here| !names_host(here)) else {
            // As it stands, it could lead to another route.
            let elsewhere = upstream.to_string();
            return HeaderValue::from_bytes(&[elsewhere.as_bytes(), path].concat()).ok();
        };
        return (here != location).then(|| HeaderValue::from_bytes(&here).ok())?;
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
    let here = paths.here(&[slash, target].concat())?;
    // A path alone is right whatever the client calls this place.
    let place = match host {
        Some(host) => format!("http://{host}"),
        None if names_host(&here) => return None,
        None => String::new(),
    };
    HeaderValue::from_bytes(&[place.as_bytes(), &here].concat()).ok()
}

// === impl RoutePaths ===

impl RoutePaths<'_> {
    /// Returns whether each path of the upstream is the same here.
    fn are_the_upstreams(&self) -> bool {
        self.prefix.is_empty()
            && self.base.is_empty()
            && self.listener_prefixes.iter().all(String::is_empty)
    }

    /// Returns where the app finds a path of the upstream, with its query and fragment; `None` if the route has no path
    /// for it.
    fn here(&self, target: &[u8]) -> Option<Vec<u8>> {
        let rest = under(target, self.base)?;
        let slash: &[u8] = if self.prefix.is_empty() && !rest.starts_with(b"/") {
            b"/"
        } else {
            b""
        };
        let here = [self.prefix.as_bytes(), slash, rest].concat();
        let path = here.split(|byte| matches!(byte, b'?' | b'#')).next();
        let path = String::from_utf8_lossy(path.unwrap_or_default());
        let leads_elsewhere = self
            .listener_prefixes
            .iter()
            .any(|other| other.len() > self.prefix.len() && is_under(&path, other));
        (self.are_the_upstreams() || !leads_elsewhere && !has_dot_segment(&path)).then_some(here)
    }
}

/// Resolves a path relative to that of the request (RFC 3986, 5.2.3 and 5.2.4). Returns `None` for any other reference,
/// and for one that keeps the path.
fn resolved(requested: &str, reference: &[u8]) -> Option<Vec<u8>> {
    let end = reference
        .iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(reference.len());
    let (path, rest) = reference.split_at_checked(end)?;
    let is_relative = !matches!(path.first(), None | Some(b'/' | b'\\'));
    let first = path.split(|byte| *byte == b'/').next()?;
    if !is_relative || first.contains(&b':') {
        return None;
    }
    let folder = requested.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_folder = false;
    let folder = folder.as_bytes().split(|byte| *byte == b'/').skip(1);
    for segment in folder.chain(path.split(|byte| *byte == b'/')) {
        is_folder = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    if is_folder {
        segments.push(b"");
    }
    Some([b"/", &*segments.join(&b'/'), rest].concat())
}

/// Returns whether a client would take the first segment of a reference for a host (RFC 3986, 4.2; browsers read `\` as
/// `/`).
fn names_host(reference: &[u8]) -> bool {
    reference.starts_with(b"//") || reference.starts_with(b"/\\")
}

/// Returns whether a client may remove segments from the path (RFC 3986, 5.2.4; WHATWG URL, "double-dot URL path
/// segment" and, for the backslash, "path state").
fn has_dot_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
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
        let paths = RoutePaths {
            prefix: listen_prefix,
            base: base.trim_end_matches('/'),
            requested: "",
            listener_prefixes: &[],
        };
        located(location, &paths, origin)
    }

    fn located(location: &str, paths: &RoutePaths<'_>, upstream: &Origin) -> Option<String> {
        let host = Some("localhost:8081");
        relocated(location.as_bytes(), paths, (upstream, None), host)
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
            let paths = RoutePaths {
                prefix,
                base: upstream.path().trim_end_matches('/'),
                requested: "",
                listener_prefixes: &[],
            };
            let relocated = relocated(location.as_bytes(), &paths, (&upstream.origin, None), None);
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
                &RoutePaths::default(),
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
            &RoutePaths {
                prefix: "/billing",
                base: "/v1",
                requested: "",
                listener_prefixes: &[],
            },
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
    fn a_relative_path_is_resolved_at_the_upstream() {
        let none: &[String] = &[];
        let others = &[String::new(), "/b".to_owned()];
        for (prefix, base, others, requested, location, found) in [
            ("/p", "/v1", none, "/v1/x/y", "z?q#f", Some("/p/x/z?q#f")),
            ("/p", "/v1", none, "/v1/x/y", "./", Some("/p/x/")),
            ("/p", "/v1", none, "/v1/x/y", "..", Some("/p/")),
            ("/p", "", none, "/x", "../y", Some("/p/y")),
            ("/p", "", none, "/", "y", Some("/p/y")),
            ("/p", "/v1", none, "/v1", "y", Some("https://a.run.app/y")),
            (
                "/p",
                "/v1",
                none,
                "/v1/x",
                "../b/secret",
                Some("https://a.run.app/b/secret"),
            ),
            (
                "/p",
                "/v1",
                none,
                "/v1/x",
                "%2e%2e/b",
                Some("https://a.run.app/v1/%2e%2e/b"),
            ),
            ("", "", others, "/x/y", "../b", Some("https://a.run.app/b")),
            ("", "", none, "/x/y", "../b", None),
            ("/p", "/v1", none, "/v1/x", "?q", None),
            ("/p", "/v1", none, "/v1/x", "#f", None),
            ("/p", "/v1", none, "/v1/x", "", None),
            ("/p", "/v1", none, "/v1/x", "mailto:a", None),
            ("/p", "/v1", none, "/v1/x", "\\\\a.example", None),
        ] {
            let paths = RoutePaths {
                prefix,
                base,
                requested,
                listener_prefixes: others,
            };
            let upstream = Destination::parse("https://a.run.app").unwrap().origin;
            let located = located(location, &paths, &upstream);
            assert_eq!(located.as_deref(), found, "{requested} {location}");
        }
    }

    #[test]
    fn a_path_outside_the_base_path_does_not_lead_to_another_route() {
        let at = |location| here(location, "/run", "https://a.run.app/base").unwrap();
        assert_eq!(at("/other?q#f"), "https://a.run.app/other?q#f");
        assert_eq!(at("/basement"), "https://a.run.app/basement");
    }

    #[test]
    fn the_base_path_itself_is_a_path_here() {
        let at = |location| here(location, "", "https://a.run.app/v1").unwrap();
        for (location, found) in [
            ("/v1", "/"),
            ("/v1/", "/"),
            ("/v1?x=1", "/?x=1"),
            ("/v1#f", "/#f"),
            ("https://a.run.app/v1", "http://localhost:8081/"),
            ("https://a.run.app/v1?x=1", "http://localhost:8081/?x=1"),
        ] {
            assert_eq!(at(location), found, "{location}");
        }
        let with_prefix = |location| here(location, "/b", "https://a.run.app/v1").unwrap();
        assert_eq!(with_prefix("/v1?x=1"), "/b?x=1");
    }

    #[test]
    fn a_location_under_the_prefix_of_another_route_stays_at_the_upstream() {
        let upstream = Destination::parse("https://a.run.app").unwrap().origin;
        let paths = RoutePaths {
            prefix: "",
            base: "",
            requested: "",
            listener_prefixes: &[String::new(), "/b".to_owned()],
        };
        let at = |location| located(location, &paths, &upstream);
        assert_eq!(at("/b/secret").unwrap(), "https://a.run.app/b/secret");
        assert_eq!(at("/b?q").unwrap(), "https://a.run.app/b?q");
        assert_eq!(
            at("/x/../b/secret").unwrap(),
            "https://a.run.app/x/../b/secret"
        );
        assert_eq!(at("https://a.run.app/b/secret"), None);
        assert_eq!(at("/bb"), None);
        assert_eq!(at("/x"), None);
    }

    #[test]
    fn a_path_behind_the_base_path_does_not_become_a_host() {
        fn at(location: &str) -> Option<String> {
            here(location, "", "https://a.run.app/v1")
        }
        for path in [
            "/v1//evil.example/x",
            "/v1/\\evil.example/x",
            "/v1///evil.example",
        ] {
            assert_eq!(at(path).unwrap(), format!("https://a.run.app{path}"));
            let absolute = at(&format!("https://a.run.app{path}")).unwrap();
            assert!(absolute.starts_with("http://localhost:8081/"), "{absolute}");
        }
    }

    #[test]
    fn a_location_with_dot_segments_does_not_lead_to_another_route() {
        fn at(location: &str) -> String {
            here(location, "/p", "https://a.run.app/v1").unwrap()
        }
        for dots in ["/..", "/%2e%2E", "/.%2e", "\\..", "/x/../.."] {
            let location = format!("/v1{dots}/b/secret");
            assert_eq!(at(&location), format!("https://a.run.app{location}"));
        }
        assert_eq!(at("/v1/..x/.y/z."), "/p/..x/.y/z.");
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
