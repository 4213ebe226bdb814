//! Layer 4, **Normalize**: determines the destination. Rejects a request whose target and authority disagree, or whose
//! framing is ambiguous, because the destination decides which token is sent.
//!
//! One exception: a forward proxy ignores the `Host` of an absolute-form HTTP/1 request (RFC 9112, 3.2.2).

mod authority;
mod max_forwards;
mod target;

use std::future::ready;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use self::authority::{
    check_connect, check_form, check_framing, checked_host, scheme_of, sole_authority,
    target_authority,
};
use self::max_forwards::count_down;
use self::target::{replace_server_wide_target, replace_websocket_scheme};
use crate::config::Route;
use crate::destination::{Destination, Host, Origin, Scheme, upstream_target};
use crate::error::{Error, ErrorKind};
use crate::proxy::headers::browser::is_ours;
use crate::proxy::headers::host::{is_authority, optional_host_text, sole_host};
use crate::proxy::headers::length::normalize_length;
use crate::proxy::ingress::{IngressKind, RouteIngress};
use crate::proxy::request::body::{RequestBody, ResponseBody};
use crate::proxy::request::{Addressed, ClientConnection, Inbound};
use crate::proxy::service::{MaybeBoxed, ProxyService};

/// The layer that determines the destination.
#[derive(Clone, Debug)]
pub(crate) struct Normalize<S> {
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
    type Response = Response<ResponseBody>;
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
            IngressKind::Forward(_) => {
                forward_destination(&mut request, &connection, &self.allowed_hosts)
            }
            IngressKind::Intercepted(origin) => tunnel_destination(origin, &request),
            IngressKind::NoRoute => Err(Error::new(
                ErrorKind::NoRoute,
                format!("no route has the path {:?}", request.uri().path()),
            )),
        };
        let destination = match destination {
            Ok(destination) => destination,
            Err(error) => {
                let unrouted = matches!(error.kind(), ErrorKind::Misdirected | ErrorKind::NoRoute);
                if unrouted
                    && let Some(requested) =
                        requested(&record.ingress().kind, &request, &connection)
                {
                    record.set_undecided(&requested);
                }
                return MaybeBoxed::rejected(error);
            }
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
        connection: &ClientConnection,
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
            return Err(bad(
                "a route does not accept CONNECT: use the forward proxy",
            ));
        }
        if let (Some(local), Some(authority)) = (connection.local, &authority)
            && !is_ours(&authority.host, &local.ip().into(), &self.allowed_hosts)
        {
            return Err(Error::new(
                ErrorKind::Misdirected,
                format!(
                    "this route does not serve the host {:?}: call it by localhost, or allow the name with --allowed-host",
                    authority.host.to_string()
                ),
            ));
        }
        let target = route_target(&route.route, request.uri())?;
        Ok(Destination {
            target,
            ..route.route.upstream.clone()
        })
    }
}

/// Returns the URL that a client named, for the log. Without a valid authority it has the listener's address.
fn requested(
    ingress: &IngressKind,
    request: &Request<RequestBody>,
    connection: &ClientConnection,
) -> Option<Destination> {
    let scheme = match ingress {
        IngressKind::Intercepted(origin) => origin.scheme,
        IngressKind::Forward(_) | IngressKind::NoRoute | IngressKind::Route(_) => Scheme::Http,
    };
    let host = || request.headers().get(header::HOST)?.to_str().ok();
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let parsed = |authority: &str| Origin::from_authority(scheme, authority).ok();
    let local = || parsed(&connection.local?.to_string());
    let origin = authority.or_else(host).and_then(parsed).or_else(local)?;
    let target = request.uri().path_and_query().cloned();
    Some(Destination {
        origin,
        target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
        userinfo: false,
    })
}

/// Returns the target of a request for the upstream of a route.
fn route_target(route: &Route, uri: &Uri) -> Result<PathAndQuery, Error> {
    let root = PathAndQuery::from_static("/");
    let asked = uri.path_and_query().unwrap_or(&root);
    upstream_target(&route.prefix, &route.upstream.target, asked)
        .map_err(|error| bad(format!("the path: {error}")))
}

fn forward_destination(
    request: &mut Request<RequestBody>,
    connection: &ClientConnection,
    allowed_hosts: &[Host],
) -> Result<Destination, Error> {
    if request.method() == Method::CONNECT {
        check_framing(request.headers())?;
        check_connect(request.headers())?;
        let origin = tunnel_target(request.uri())?;
        let names_proxy = |named: &Origin| {
            connection.local.is_some_and(|local| {
                named.port == local.port()
                    && is_ours(&named.host, &local.ip().into(), allowed_hosts)
            })
        };
        check_tunnel_host(&origin, request.headers(), names_proxy)?;
        return Ok(Destination {
            origin,
            target: PathAndQuery::from_static("/"),
            userinfo: false,
        });
    }
    if request.uri().authority().is_none() {
        return Err(Error::new(
            ErrorKind::NotAbsolute,
            "this is a forward proxy, which accepts absolute URLs only: set HTTP_PROXY to this address, or add a --route",
        ));
    }
    if request.version() < Version::HTTP_2 {
        ignore_host(request)?;
    } else {
        sole_authority(Scheme::Http, request)?;
    }
    Destination::from_uri(request.uri()).map_err(|error| bad(error.to_string()))
}

/// Replaces the `Host` of an absolute-form request by the target's authority (RFC 9112, 3.2.2). Fails if `Host` is not
/// a valid authority.
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

/// Returns the origin of a `CONNECT` target, which is host and port (RFC 9110, 9.3.6). Port 80 means `http`: requests
/// inside go where absolute-form requests for `http://HOST` go.
fn tunnel_target(uri: &Uri) -> Result<Origin, Error> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let origin = Origin::from_authority(Scheme::Https, authority)
        .map_err(|error| bad(format!("CONNECT: {error}")))?;
    let port = uri.authority().and_then(|authority| authority.port());
    if uri.scheme().is_some() || port.is_none() {
        return Err(bad(format!(
            "CONNECT accepts HOST:PORT only, such as {}:{}",
            origin.host, origin.port
        )));
    }
    let scheme = match origin.port {
        80 => Scheme::Http,
        _ => Scheme::Https,
    };
    Ok(Origin { scheme, ..origin })
}

/// Checks the `Host` of a `CONNECT`, which must name the target (RFC 9112, 3.2). Some clients send none, or one without
/// the port. Node's `http.request` sends the proxy's.
fn check_tunnel_host(
    origin: &Origin,
    headers: &HeaderMap,
    names_proxy: impl FnOnce(&Origin) -> bool,
) -> Result<(), Error> {
    let Some(host) = optional_host_text(headers)? else {
        return Ok(());
    };
    let named = Origin::from_authority(origin.scheme, host)
        .map_err(|error| bad(format!("Host: {error}")))?;
    let names_target =
        named.host == origin.host && (named.port == origin.port || named.is_default_port());
    if !names_target && !names_proxy(&named) {
        let target = origin.authority();
        return Err(bad(format!("CONNECT is to {target}, but Host is {host:?}")));
    }
    Ok(())
}

/// Returns the destination of a request inside a tunnel, which must name the tunnel's host: a coalesced connection
/// (RFC 9113, 9.1.1) must not receive another host's token.
fn tunnel_destination(
    origin: &Origin,
    request: &Request<RequestBody>,
) -> Result<Destination, Error> {
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT inside a tunnel is not supported"));
    }
    match sole_authority(origin.scheme, request)? {
        Some(named) if named != *origin => Err(Error::new(
            ErrorKind::Misdirected,
            format!("this tunnel is to {origin}, but the request inside is for {named}"),
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
