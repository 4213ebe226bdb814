//! Explains how an app must make a call to get its token: the exact URL and flag.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Case, Egress, Intercept, OwnListeners, named};
use crate::destination::{Destination, Host, Origin, Scheme, longest_prefix, upstream_target};
use crate::policy::{Credential, RuleOptions, ServiceName, is_below};

/// The addresses at which calls enter the sidecar.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryPoints {
    /// The forward proxy's `HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// `--intercept`.
    pub(crate) intercept: Intercept,
    /// `--ca-dir`: the directory of the CA that an app must trust for interception.
    pub(crate) ca_dir: Option<String>,
    /// The routes.
    pub(crate) routes: Vec<RouteEntry>,
    /// The listeners of the sidecar, calls to which are rejected.
    pub(crate) own: OwnListeners,
    /// `--upstream-proxy`.
    pub(crate) egress: Option<Egress>,
}

/// A route, as `explain` uses it.
#[derive(Clone, Debug)]
pub(crate) struct RouteEntry {
    /// `LISTEN` as the user wrote it.
    pub(crate) name: Arc<str>,
    /// The URL under which the app reaches the route, with the prefix: `http://localhost:8081/billing`. `None` for a
    /// unix socket.
    pub(crate) url: Option<Destination>,
    /// The path prefix that the route serves, without a trailing slash; empty for all paths.
    pub(crate) prefix: String,
    /// The upstream, with its base path.
    pub(crate) upstream: Destination,
    /// The service, if the upstream is given by name.
    pub(crate) service: Option<ServiceName>,
    /// The user's options for the credential.
    pub(crate) options: RuleOptions,
}

// === impl EntryPoints ===

impl EntryPoints {
    /// Returns the route that a call to `asked` takes or could take, and the URL of the upstream.
    ///
    /// Prefers the route's own URL, because the app calls that. Prefers the longest path.
    pub(crate) fn find(&self, asked: &Destination) -> Option<(&RouteEntry, Destination)> {
        let covering = || {
            self.routes
                .iter()
                .filter(|route| {
                    route.upstream.origin.upgraded() == asked.origin.upgraded()
                        && below(asked, &route.upstream).is_some()
                })
                .max_by_key(|route| route.upstream.path().len())
                .map(|route| (route, asked.clone()))
        };
        self.entered(asked).or_else(covering)
    }

    /// Returns the route that a call to the URL enters, and the URL of the upstream, as for a request.
    fn entered(&self, asked: &Destination) -> Option<(&RouteEntry, Destination)> {
        let routes = self.listening_at(asked);
        let route = longest_prefix(routes, |route| &route.prefix, asked.path())?;
        let upstream = &route.upstream;
        let target = upstream_target(&route.prefix, &upstream.target, &asked.target).ok()?;
        let upstream = Destination {
            target,
            ..upstream.clone()
        };
        Some((route, upstream))
    }

    /// Returns the routes of the listener that has the URL's address. A listener on exactly this address has
    /// precedence.
    fn listening_at(&self, asked: &Destination) -> Vec<&RouteEntry> {
        let at = |matches: fn(&Destination, &Destination) -> bool| -> Vec<&RouteEntry> {
            let routes = self.routes.iter();
            let is_at = |route: &&RouteEntry| {
                let url = route.url.as_ref();
                url.is_some_and(|url| matches(url, asked))
            };
            routes.filter(is_at).collect()
        };
        let exact = at(|url, asked| url.origin == asked.origin);
        match exact.is_empty() {
            true => at(is_same_entry),
            false => exact,
        }
    }

    /// Returns whether the listener of a route has the URL's address.
    pub(super) fn is_entry(&self, asked: &Destination) -> bool {
        !self.listening_at(asked).is_empty()
    }

    /// Returns a port for a suggested route. No other listener has it.
    pub(super) fn free_port(&self) -> u16 {
        (8081..8181)
            .find(|port| {
                let origin = Origin {
                    scheme: Scheme::Http,
                    host: Host::Ip(Ipv4Addr::LOCALHOST.into()),
                    port: *port,
                };
                let port = port.to_string();
                !self.own.has(&origin)
                    && self.routes.iter().all(|route| !route.name.contains(&port))
            })
            .unwrap_or(8081)
    }
}

/// Advises an app that calls a listener of the sidecar through the forward proxy.
pub(super) const WITHOUT_PROXY: &str = "set NO_PROXY=localhost,127.0.0.1 beside HTTP_PROXY";

/// Says which rule denies a tunnel to the host.
fn tunnel_denied(rule: &str) -> String {
    format!(
        "A tunnel to this host (an https:// URL through HTTPS_PROXY) is rejected with 403, because {rule} denies other \
         paths of it and a tunnel hides the path."
    )
}

pub(super) fn how(case: &Case<'_>, entry_points: &EntryPoints) -> String {
    if case.leads_here {
        return rejected_as_own(case);
    }
    match case.credential() {
        Credential::Deny => return "The sidecar rejects this call with 403.".to_owned(),
        Credential::None => {
            if let (Some(rule), Some(_)) = (&case.tunnel_denied_by, &entry_points.proxy) {
                return format!(
                    "Add a route: {}. {}",
                    new_route(case, entry_points),
                    tunnel_denied(rule)
                );
            }
            return "No change is needed: the sidecar forwards the call and adds no token."
                .to_owned();
        }
        Credential::Access | Credential::Id => {}
    }
    if let Some(route) = case.route {
        return through_route(case, route);
    }
    if let Some(asked) = &case.named {
        return named::how(case, asked, entry_points);
    }
    let asked = &case.destination;
    let mut text = String::new();
    // In an http:// URL, port 80 becomes 443, so this one origin has no http:// URL.
    let nameable = asked.origin.scheme == Scheme::Http || asked.origin.port != 80;
    if let Some(proxy) = entry_points.proxy.as_ref().filter(|_| nameable) {
        let _ = write!(
            text,
            "Call {} with HTTP_PROXY=http://{proxy}{}. {} Or add a route: ",
            in_http(asked),
            if case.in_cleartext() {
                ": the sidecar sends it in cleartext (plaintext=allow)"
            } else {
                ": the sidecar sends it over TLS"
            },
            over_https(case, entry_points, proxy),
        );
    } else {
        text.push_str("Add a route: ");
    }
    let _ = write!(text, "{}.", new_route(case, entry_points));
    text
}

/// Returns the flag of a route for the call, and the URL to call.
fn new_route(case: &Case<'_>, entry_points: &EntryPoints) -> String {
    let asked = &case.destination;
    let port = entry_points.free_port();
    format!(
        "--route {port}={}, and call {}",
        case.sent_to(),
        with_query(format!("http://localhost:{port}{}", asked.path()), asked)
    )
}

fn rejected_as_own(case: &Case<'_>) -> String {
    let origin = case.sent_to();
    let own = OwnListeners::DESCRIPTION;
    match case.route {
        Some(route) => format!(
            "The sidecar rejects this call with 508: the upstream {origin} of the route {} is {own}. Set the real \
             upstream in the route.",
            route.name
        ),
        None => format!(
            "The sidecar rejects this call with 508: {origin} is {own}. To call it without the sidecar's forward proxy, \
             {WITHOUT_PROXY}."
        ),
    }
}

/// Explains what an app needs that calls only `https://` URLs.
fn over_https(case: &Case<'_>, entry_points: &EntryPoints, proxy: &str) -> String {
    if let Some(rule) = &case.tunnel_denied_by {
        return tunnel_denied(rule);
    }
    if case.destination.origin.host.name().is_none() {
        return "An https:// URL through HTTPS_PROXY is a blind tunnel without a token, because the CA has no \
                certificates for addresses."
            .to_owned();
    }
    if !entry_points.intercept.is_on() {
        return "An https:// URL through HTTPS_PROXY is a blind tunnel without a token, unless --intercept and \
                --ca-dir DIR are set; sidentity exec -- CMD sets both, and the variables of CMD."
            .to_owned();
    }
    if !entry_points.intercept.covers(&case.destination.origin.host) {
        return "An https:// URL through HTTPS_PROXY is a blind tunnel without a token until a restart, because the CA \
                of --intercept, which is created at the start, does not cover this host."
            .to_owned();
    }
    let trusted = match entry_points
        .ca_dir
        .as_ref()
        .map(|folder| folder.trim_end_matches('/'))
    {
        Some(folder) => format!(
            "trusts this sidecar's CA: SSL_CERT_FILE={folder}/bundle.pem, NODE_EXTRA_CA_CERTS={folder}/ca.pem, or for Java \
             -Djavax.net.ssl.trustStore={folder}/truststore.p12"
        ),
        None => "trusts this sidecar's CA, which --ca-dir DIR writes".to_owned(),
    };
    format!("An https:// URL gets the token with HTTPS_PROXY=http://{proxy}, if the app {trusted}.")
}

fn through_route(case: &Case<'_>, route: &RouteEntry) -> String {
    let over = if case.in_cleartext() {
        "in cleartext (plaintext=allow)"
    } else {
        "over TLS"
    };
    let rest = below(&case.destination, &route.upstream).unwrap_or("/");
    match &route.url {
        Some(url) => format!(
            "Call {}: the route {} adds the token and sends it {over}.",
            with_query(
                format!("{}{}{rest}", url.origin, url.path().trim_end_matches('/')),
                &case.destination
            ),
            route.name
        ),
        None => format!(
            "Call {} on the socket of the route {}: it adds the token and sends it {over}.",
            with_query(rest.to_owned(), &case.destination),
            route.name
        ),
    }
}

/// Returns the part of the path below `base`, with its leading slash.
fn below<'a>(destination: &'a Destination, base: &Destination) -> Option<&'a str> {
    let prefix = base.path().trim_end_matches('/');
    destination
        .path()
        .strip_prefix(prefix)
        .filter(|_| is_below(destination.path(), prefix))
}

/// Compares two URLs of entry points. `localhost`, `127.0.0.1`, `[::1]` and unspecified addresses are equal, because
/// users mix them.
fn is_same_entry(url: &Destination, asked: &Destination) -> bool {
    let (entry, origin) = (&url.origin, &asked.origin);
    entry.port == origin.port
        && origin.scheme == Scheme::Http
        && (entry.host == origin.host || (is_local(&entry.host) && is_local(&origin.host)))
}

/// Returns whether the host is loopback or an unspecified address.
fn is_local(host: &Host) -> bool {
    host.is_loopback() || matches!(host, Host::Ip(address) if address.is_unspecified())
}

/// Returns the http:// URL with which the forward proxy sees the request.
pub(super) fn in_http(destination: &Destination) -> String {
    let origin = &destination.origin;
    let port = match (origin.scheme, origin.port) {
        (Scheme::Https, 443) => 80,
        (_, port) => port,
    };
    let origin = Origin {
        scheme: Scheme::Http,
        host: origin.host.clone(),
        port,
    };
    format!("{origin}{}", destination.target)
}

pub(super) fn with_query(mut path: String, asked: &Destination) -> String {
    if let Some(query) = asked.query() {
        path.push('?');
        path.push_str(query);
    }
    path
}
