//! Layer 5, **Normalize**: determines the destination. Rejects a request whose target and authority disagree, or whose
//! framing is ambiguous, because the destination decides which token is sent.
//!
//! One exception: a forward proxy ignores the `Host` of an absolute-form HTTP/1 request (RFC 9112, 3.2.2).

mod max_forwards;

use std::future::ready;
use std::sync::Arc;

use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use self::max_forwards::count_down;
use crate::destination::{Destination, Host, Origin, Scheme};
use crate::error::{Error, ErrorKind};
use crate::proxy::headers::authority::{host_text, is_authority, sole_host};
use crate::proxy::headers::browser::is_ours;
use crate::proxy::headers::hop_by_hop::is_chunked_at_most;
use crate::proxy::headers::length::normalize_length;
use crate::proxy::ingress::{IngressKind, RouteIngress};
use crate::proxy::request::body::{Body, RequestBody};
use crate::proxy::request::{Addressed, Connection, Inbound};
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// See the module.
#[derive(Clone, Debug)]
pub struct Normalize<S> {
    inner: S,
    allowed_hosts: Arc<[Host]>,
}

// === impl Normalize ===

impl<S> Normalize<S> {
    pub(crate) fn layer(allowed_hosts: Arc<[Host]>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self {
            inner,
            allowed_hosts: allowed_hosts.clone(),
        })
    }
}

impl<S: ProxyService<Addressed>> Service<Inbound> for Normalize<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = MaybeBoxed<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        let Inbound {
            mut request,
            record,
            connection,
        } = inbound;
        if let Err(error) = normalize_length(request.headers_mut()) {
            return MaybeBoxed::rejected(bad(error.to_string()));
        }
        replace_websocket_scheme(&mut request);
        replace_server_wide_target(&mut request);
        let destination = match &record.ingress().kind {
            IngressKind::Route(route) => self.route_destination(route, &request, &connection),
            IngressKind::Forward(_) => forward_destination(&mut request),
            IngressKind::Intercepted(origin) => tunnel_destination(origin, &request),
            IngressKind::NoRoute => Err(Error::new(
                ErrorKind::NoRoute,
                format!("no route has the path {:?}", request.uri().path()),
            )),
        };
        let destination = match destination {
            Ok(destination) => destination,
            Err(error) => return MaybeBoxed::rejected(error),
        };
        match count_down(&mut request) {
            Ok(None) => MaybeBoxed::inner(self.inner.call(Addressed {
                request,
                record,
                destination,
            })),
            Ok(Some(response)) => {
                record.set_undecided(&destination);
                MaybeBoxed::boxed(ready(Ok(response)))
            }
            Err(error) => MaybeBoxed::rejected(error),
        }
    }
}

impl<S> Normalize<S> {
    fn route_destination(
        &self,
        route: &RouteIngress,
        request: &Request<RequestBody>,
        connection: &Connection,
    ) -> Result<Destination, Error> {
        // Web pages cannot reach a unix socket, and clients send various hosts for one: none, or its path.
        let authority = match connection.local {
            Some(_) => sole_authority(Scheme::Http, request)?,
            None => {
                check_framing(request.headers())?;
                check_form(request)?;
                sole_host(request.headers())?;
                None
            }
        };
        if request.method() == Method::CONNECT {
            return Err(bad("a route takes no CONNECT: use the forward proxy"));
        }
        if let (Some(local), Some(authority)) = (connection.local, &authority)
            && !is_ours(&authority.host, &local.ip().into(), &self.allowed_hosts)
        {
            return Err(Error::new(
                ErrorKind::Misdirected,
                format!(
                    "this route does not answer for {:?}: call it by localhost, or allow the name with --allowed-host",
                    authority.host.to_string()
                ),
            ));
        }
        let target = route_target(route, request.uri())?;
        Ok(Destination {
            target,
            ..route.route.upstream.clone()
        })
    }
}

/// Replaces `ws` and `wss` in an absolute target by `http` and `https`: a WebSocket begins as an HTTP request (RFC 6455, 3 and 4.1).
fn replace_websocket_scheme(request: &mut Request<RequestBody>) {
    if request.version() >= Version::HTTP_2 {
        return;
    }
    let scheme = match request.uri().scheme_str() {
        Some(scheme) if scheme.eq_ignore_ascii_case("ws") => uri::Scheme::HTTP,
        Some(scheme) if scheme.eq_ignore_ascii_case("wss") => uri::Scheme::HTTPS,
        _ => return,
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    // Cannot fail: all three parts are present.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// Replaces an absolute OPTIONS target without a path, which means the whole server, by `*` (RFC 9112, 3.2.4). HTTP/2 uses
/// `*` already (RFC 9113, 8.3.1).
fn replace_server_wide_target(request: &mut Request<RequestBody>) {
    let uri = request.uri();
    if request.method() == Method::OPTIONS
        && request.version() < Version::HTTP_2
        && uri.scheme().is_some()
        && uri.query().is_none()
        && !has_written_path(uri)
    {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*"));
        // Cannot fail: all three parts are present.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Whether an absolute URI was written with a path. [`Uri::path`] returns `/` for an absent path too, but that `/` is not in
/// the buffer that the parts of a parsed URI share.
fn has_written_path(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        let authority = authority.as_str().as_bytes().as_ptr_range();
        std::ptr::eq(authority.end, uri.path().as_ptr())
    })
}

/// Returns the authority that the target or `Host` names. Fails if they differ. `scheme` is that of the connection.
fn sole_authority(scheme: Scheme, request: &Request<RequestBody>) -> Result<Option<Origin>, Error> {
    match authorities(scheme, request)? {
        (Some(target), Some(host)) if target != host => Err(bad(format!(
            "the request is for {target} and its Host header for {host}"
        ))),
        (target, host) => Ok(target.or(host)),
    }
}

/// Returns the authority of the target, and that of `Host`.
fn authorities(
    scheme: Scheme,
    request: &Request<RequestBody>,
) -> Result<(Option<Origin>, Option<Origin>), Error> {
    let host = checked_host(request)?;
    let scheme = scheme_of(request).unwrap_or(scheme);
    // An empty Host is valid only for a target without an authority (RFC 9112, 3.2), which does not occur here.
    let host = host
        .map(|host| Origin::from_authority(scheme, host))
        .transpose()
        .map_err(|error| bad(format!("Host: {error}")))?;
    Ok((target_authority(scheme, request)?, host))
}

/// Returns the text of `Host`, after the checks of framing and form.
fn checked_host(request: &Request<RequestBody>) -> Result<Option<&str>, Error> {
    check_framing(request.headers())?;
    check_form(request)?;
    host_text(request)
}

fn scheme_of(request: &Request<RequestBody>) -> Option<Scheme> {
    request.uri().scheme_str().map(|scheme| match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    })
}

fn target_authority(
    scheme: Scheme,
    request: &Request<RequestBody>,
) -> Result<Option<Origin>, Error> {
    match request.uri().authority() {
        Some(authority) => {
            let text = authority.as_str();
            if request.version() == Version::HTTP_2 && text.contains('@') {
                return Err(bad("user-info in :authority (RFC 9113, 8.3.1)"));
            }
            let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
            Origin::from_authority(scheme, text)
                .map(Some)
                .map_err(|error| bad(error.to_string()))
        }
        None => Ok(None),
    }
}

/// Rejects asterisk form and authority form with the wrong method (RFC 9112, 3.2.3 and 3.2.4).
fn check_form(request: &Request<RequestBody>) -> Result<(), Error> {
    let (method, uri) = (request.method(), request.uri());
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err(bad("the target * is for OPTIONS alone (RFC 9112, 3.2.4)"));
    }
    if uri.scheme().is_none() && uri.authority().is_some() && method != Method::CONNECT {
        return Err(bad(
            "a target of host and port is for CONNECT alone (RFC 9112, 3.2.3)",
        ));
    }
    Ok(())
}

/// Rejects requests with both length headers (request smuggling; RFC 9112, 6.3) and codings other than chunked.
fn check_framing(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(bad("both Transfer-Encoding and Content-Length"));
    }
    if !is_chunked_at_most(headers) {
        return Err(bad("a Transfer-Encoding other than chunked"));
    }
    Ok(())
}

/// Returns the upstream's base path followed by the request's path without the route's prefix.
fn route_target(route: &RouteIngress, uri: &Uri) -> Result<PathAndQuery, Error> {
    let (path, query) = (uri.path(), uri.query());
    let base = route.route.upstream.path();
    let base = base.strip_suffix('/').unwrap_or(base);
    // Fast path: no prefix to remove and no base path to add.
    if base.is_empty()
        && route.route.prefix.is_empty()
        && let Some(target) = uri.path_and_query()
        && target.as_str().starts_with('/')
    {
        return Ok(target.clone());
    }
    let rest = path.strip_prefix(&*route.route.prefix).unwrap_or(path);
    let mut target = String::with_capacity(base.len() + path.len() + query.map_or(0, str::len) + 2);
    target.push_str(base);
    if path == "*" && base.is_empty() {
        target.push('*');
    } else if path == "*" {
        // The base path is a part of the upstream's server, not the whole server.
        target.push('/');
    } else if rest.is_empty() {
        target.push('/');
    } else {
        target.push_str(rest);
    }
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target).map_err(|error| bad(format!("the path: {error}")))
}

fn forward_destination(request: &mut Request<RequestBody>) -> Result<Destination, Error> {
    if request.method() == Method::CONNECT {
        check_framing(request.headers())?;
        return Ok(Destination {
            origin: tunnel_target(request.uri())?,
            target: PathAndQuery::from_static("/"),
            userinfo: false,
        });
    }
    if request.uri().authority().is_none() {
        return Err(Error::new(
            ErrorKind::NotAbsolute,
            "this is a forward proxy, it takes absolute URLs: set HTTP_PROXY to this address, or add a --route",
        ));
    }
    if request.version() < Version::HTTP_2 {
        ignore_host(request)?;
    } else {
        sole_authority(Scheme::Http, request)?;
    }
    Destination::from_uri(request.uri()).map_err(|error| bad(error.to_string()))
}

/// Replaces the `Host` of an absolute-form request by the target's authority (RFC 9112, 3.2.2). Fails if `Host` is not a
/// valid authority.
fn ignore_host(request: &mut Request<RequestBody>) -> Result<(), Error> {
    let host = checked_host(request)?;
    let scheme = scheme_of(request).unwrap_or(Scheme::Http);
    let target = target_authority(scheme, request)?;
    let (Some(target), Some(host)) = (target, host) else {
        return Ok(());
    };
    let named = Origin::from_authority(scheme, host);
    if let Err(error) = &named
        && !is_authority(host)
    {
        return Err(bad(format!("Host: {error}")));
    }
    if named.as_ref() != Ok(&target) {
        let host =
            HeaderValue::try_from(target.authority()).map_err(|error| bad(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

/// Returns the origin of a `CONNECT` target, which is host and port (RFC 9110, 9.3.6). Port 80 means `http`: requests inside
/// go where absolute-form requests for `http://HOST` go.
fn tunnel_target(uri: &Uri) -> Result<Origin, Error> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let origin = Origin::from_authority(Scheme::Https, authority)
        .map_err(|error| bad(format!("CONNECT {error}")))?;
    let port = uri.authority().and_then(|authority| authority.port());
    if uri.scheme().is_some() || port.is_none() {
        return Err(bad(format!(
            "CONNECT takes HOST:PORT, like {}:{}",
            origin.host, origin.port
        )));
    }
    let scheme = match origin.port {
        80 => Scheme::Http,
        _ => Scheme::Https,
    };
    Ok(Origin { scheme, ..origin })
}

/// Returns the destination of a request inside a tunnel, which must name the tunnel's host: a coalesced connection
/// (RFC 9113, 9.1.1) must not receive another host's token.
fn tunnel_destination(
    origin: &Origin,
    request: &Request<RequestBody>,
) -> Result<Destination, Error> {
    if request.method() == Method::CONNECT {
        return Err(bad("no tunnel inside of a tunnel"));
    }
    match sole_authority(origin.scheme, request)? {
        Some(named) if named != *origin => Err(Error::new(
            ErrorKind::Misdirected,
            format!("this tunnel is to {origin}, and the request inside for {named}"),
        )),
        Some(_) | None => {
            let uri = request.uri();
            Ok(Destination {
                origin: origin.clone(),
                target: uri
                    .path_and_query()
                    .cloned()
                    .unwrap_or_else(|| PathAndQuery::from_static("/")),
                userinfo: uri.authority().is_some_and(|a| a.as_str().contains('@')),
            })
        }
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_path_that_was_written_is_told_from_one_that_was_not() {
        for (uri, written) in [
            ("http://host", false),
            ("http://user@host:80", false),
            ("http://host#fragment", false),
            ("http://host/", true),
            ("http://host/#fragment", true),
            ("http://host:80/p", true),
        ] {
            let parsed = Uri::from_maybe_shared(Bytes::from_static(uri.as_bytes())).unwrap();
            assert_eq!(has_written_path(&parsed), written, "{uri}");
            assert_eq!(has_written_path(&uri.parse().unwrap()), written, "{uri}");
        }
    }
}
