//! Targets of connections, and the address forms of their requests.

use std::sync::Arc;

use http::header::{CONNECTION, COOKIE, HOST, PROXY_AUTHORIZATION, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};

use super::tls::AlpnOffer;
use crate::config::{HttpVersion, UpstreamProxy};
use crate::destination::{Origin, Scheme};
use crate::header_lookup;

/// The target of a connection. Requests with equal targets share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The destination's origin, which `--connect-to` does not change.
    pub origin: Origin,
    /// The HTTP version.
    pub http: HttpVersion,
    /// Whether `--upstream-proxy` may read the requests. It then gets them in absolute form. Otherwise, and for
    /// requests without such a form, a `CONNECT` tunnel is used. The flag has no effect without a proxy or over TLS.
    pub proxy_may_read: bool,
    /// Whether the requests ask for an upgrade. They have connections of their own, because only other connections can
    /// be parked while they are idle.
    pub upgrade: bool,
}

/// A target's origin, in the forms that requests contain.
#[derive(Clone, Debug)]
pub(super) struct RequestTarget {
    pub(super) origin: Origin,
    scheme: UriScheme,
    authority: Authority,
    host: HeaderValue,
    /// The proxy that gets the requests in absolute form (RFC 9112, 3.2.2).
    pub(super) proxy: Option<Arc<UpstreamProxy>>,
}

// === impl Target ===

impl Target {
    pub(super) fn alpn_offer(&self) -> AlpnOffer {
        match (self.http, self.origin.scheme) {
            (HttpVersion::Http1, _) | (HttpVersion::Auto, Scheme::Http) => AlpnOffer::Http1,
            (HttpVersion::Http2, _) => AlpnOffer::Http2,
            (HttpVersion::Auto, Scheme::Https) => AlpnOffer::Both,
        }
    }

    /// Returns the same target over HTTP/1.1, the only version that permits an upgrade (RFC 9110, 7.8).
    pub(super) fn for_upgrade(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            http: HttpVersion::Http1,
            proxy_may_read: false,
            upgrade: true,
        }
    }
}

// === impl RequestTarget ===

impl RequestTarget {
    /// Returns `None` for a host that a URI cannot contain.
    pub(super) fn new(origin: &Origin, proxy: Option<Arc<UpstreamProxy>>) -> Option<Self> {
        let text = origin.authority();
        Some(Self {
            origin: origin.clone(),
            scheme: match origin.scheme {
                Scheme::Http => UriScheme::HTTP,
                Scheme::Https => UriScheme::HTTPS,
            },
            host: HeaderValue::from_str(&text).ok()?,
            authority: Authority::try_from(text).ok()?,
            proxy,
        })
    }

    /// Sets origin-form and `Host` (RFC 9112, 3.2.1), or absolute form for a proxy. Joins `Cookie` into one field.
    pub(super) fn rewrite_for_http1<B>(&self, request: &mut Request<B>) {
        let path = path(request.uri());
        *request.uri_mut() = match &self.proxy {
            None => Uri::from(path),
            Some(proxy) => {
                if let Some(credentials) = &proxy.authorization {
                    request
                        .headers_mut()
                        .insert(PROXY_AUTHORIZATION, credentials.clone());
                }
                self.absolute(path)
            }
        };
        *request.version_mut() = Version::HTTP_11;
        // Replaces the caller's own field, so that the order stays.
        request.headers_mut().insert(HOST, self.host.clone());
        join_cookies(request.headers_mut());
    }

    /// Sets `:scheme`, `:authority` and `:path`, and removes `Host`, because some servers refuse both together.
    pub(super) fn rewrite_for_http2<B>(&self, request: &mut Request<B>) {
        *request.uri_mut() = self.absolute(path(request.uri()));
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        header_lookup::detach(request.headers_mut());
    }

    fn absolute(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        // This cannot fail, because all three parts are set. Without an authority, h2 would send nothing.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Returns whether this request may be sent to a proxy in absolute form. hyper does not write the form of `OPTIONS *`.
/// The response to `TRACE` echoes credentials. A proxy would consume `Proxy-Authorization`.
pub(super) fn is_forwardable<B>(request: &Request<B>) -> bool {
    !request.method().as_str().eq_ignore_ascii_case("TRACE")
        && request.uri().path() != "*"
        && !request.headers().contains_key(PROXY_AUTHORIZATION)
}

/// Joins the fields into which HTTP/2 may split a cookie (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if header_lookup::values(headers, &COOKIE).nth(1).is_none() {
        return;
    }
    let crumbs = headers.get_all(COOKIE);
    let sensitive = crumbs.iter().any(HeaderValue::is_sensitive);
    let crumbs: Vec<_> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    // Valid values with a valid separator form a valid value.
    if let Ok(mut cookie) = HeaderValue::from_bytes(&crumbs.join(b"; " as &[u8])) {
        cookie.set_sensitive(sensitive);
        headers.insert(COOKIE, cookie);
    }
}

/// Returns whether the request asks for another protocol on its connection.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    header_lookup::has(headers, &UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// Returns the path and query, or `/` if the URI has none. `http` prints the path of `http://host#fragment` as empty.
fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .filter(|target| target.as_str() != "/")
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scheme: Scheme, authority: &str) -> RequestTarget {
        RequestTarget::new(&Origin::from_authority(scheme, authority).unwrap(), None).unwrap()
    }

    fn request(uri: &str) -> Request<()> {
        Request::builder()
            .uri(uri)
            .header("accept", "*/*")
            .header("host", "localhost:8081")
            .header("host", "another")
            .header("x-last", "1")
            .body(())
            .unwrap()
    }

    #[test]
    fn http1_gets_origin_form_and_its_own_host() {
        for uri in ["/a?b=c", "http://elsewhere:1/a?b=c"] {
            let mut request = request(uri);
            address(Scheme::Https, "api.example:8443").rewrite_for_http1(&mut request);
            assert_eq!(request.uri(), "/a?b=c");
            let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
            assert_eq!(hosts, ["api.example:8443"]);
            let names: Vec<_> = request.headers().keys().collect();
            assert_eq!(names, ["accept", "host", "x-last"], "the order is kept");
        }
    }

    #[test]
    fn http1_gets_one_cookie_field_and_http2_the_original_ones() {
        let crumbs = |request: &Request<()>| -> Vec<Vec<u8>> {
            let crumbs = request.headers().get_all(COOKIE).iter();
            crumbs.map(|crumb| crumb.as_bytes().to_vec()).collect()
        };
        let address = address(Scheme::Https, "api.example");
        for (sent, joined) in [
            (&["a=1"] as &[&str], "a=1"),
            (&["a=1; b=2"], "a=1; b=2"),
            (&["a=1", "b=2", "c=\u{e9}"], "a=1; b=2; c=\u{e9}"),
        ] {
            let mut request = request("/");
            for crumb in sent {
                let crumb = HeaderValue::from_bytes(crumb.as_bytes()).unwrap();
                request.headers_mut().append(COOKIE, crumb);
            }
            let mut over_http2 = request.clone();
            address.rewrite_for_http1(&mut request);
            assert_eq!(crumbs(&request), [joined.as_bytes()]);
            address.rewrite_for_http2(&mut over_http2);
            assert_eq!(crumbs(&over_http2).len(), sent.len());
        }
    }

    #[test]
    fn http2_gets_an_authority_without_host() {
        for (authority, expected) in [
            ("api.example", "https://api.example/a?b=c"),
            ("[::1]:8443", "https://[::1]:8443/a?b=c"),
        ] {
            let mut request = request("/a?b=c");
            address(Scheme::Https, authority).rewrite_for_http2(&mut request);
            assert_eq!(request.uri().to_string(), expected);
            assert!(!request.headers().contains_key(HOST));
            assert_eq!(request.version(), Version::HTTP_2);
        }
    }

    #[test]
    fn options_asterisk_stays_an_asterisk() {
        let address = address(Scheme::Http, "api.example");
        let mut request = request("*");
        address.rewrite_for_http1(&mut request);
        assert_eq!(request.uri().to_string(), "*");
        address.rewrite_for_http2(&mut request);
        assert_eq!(request.uri().path(), "*");
        assert_eq!(request.uri().authority().unwrap(), "api.example");
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(*name, HeaderValue::from_static(value));
            }
            map
        };
        assert!(is_upgrade(&headers(&[
            ("connection", "keep-alive"),
            ("connection", "x, Upgrade"),
            ("upgrade", "websocket"),
        ])));
        assert!(!is_upgrade(&headers(&[("upgrade", "websocket")])));
        assert!(!is_upgrade(&headers(&[("connection", "upgrade")])));
    }
}
