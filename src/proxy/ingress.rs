//! How a request came in, and what that determines about its destination.

use std::sync::Arc;

use http::HeaderValue;

use super::credentials::{CredentialProvider, DecidedCall, RouteDecision};
use crate::config::{AccessLog, HttpVersion, Route};
use crate::destination::{Destination, Origin};
use crate::diagnostics::LogEntry;
use crate::error::ErrorKind;
use crate::policy::ServiceName;
use crate::telemetry::ListenerMetrics;

/// A route, the forward proxy, the inside of a tunnel, or the paths of a listener that no route serves.
#[derive(Debug)]
pub(crate) struct Ingress {
    /// The `listener` label of its metrics.
    pub(crate) name: Arc<str>,
    /// Its metric handles, resolved once.
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Its kind.
    pub(crate) kind: IngressKind,
}

/// The kinds of ingress.
#[derive(Debug)]
pub(crate) enum IngressKind {
    /// A reverse route.
    Route(Box<RouteIngress>),
    /// The forward proxy: absolute-form requests and `CONNECT`.
    Forward(ForwardProxy),
    /// Inside a `CONNECT` tunnel to this origin, whose TLS is terminated here or which carries plaintext HTTP. Its
    /// requests must be for this origin.
    Intercepted(Origin),
    /// A path that no route serves: 404.
    NoRoute,
}

/// A reverse route at run time.
#[derive(Debug)]
pub(crate) struct RouteIngress {
    /// The configured value.
    pub(crate) route: Route,
    /// The path prefixes of all routes of the listener.
    pub(crate) listener_prefixes: Arc<[String]>,
    /// The HTTP version to use with its upstream.
    pub(crate) http: HttpVersion,
    /// The cached decision.
    pub(crate) decision: RouteDecision,
}

/// The forward proxy at run time.
#[derive(Debug)]
pub(crate) struct ForwardProxy {
    /// The only accepted `Proxy-Authorization`, if the proxy requires one.
    pub(crate) auth: Option<HeaderValue>,
}

// === impl Ingress ===

impl Ingress {
    /// Returns the service that a route leads to, if the route names only the service.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        self.route()?.route.service.as_ref()
    }

    /// Returns whether a caller must authenticate (`--proxy-auth`).
    pub(crate) fn requires_auth(&self) -> bool {
        match &self.kind {
            IngressKind::Forward(forward) => forward.auth.is_some(),
            IngressKind::Route(_) | IngressKind::Intercepted(_) | IngressKind::NoRoute => false,
        }
    }

    /// Returns the decision for one call.
    pub(super) fn decide(
        &self,
        provider: &CredentialProvider,
        destination: &Destination,
    ) -> DecidedCall {
        match self.route() {
            Some(route) => route
                .decide(provider)
                .unwrap_or_else(|| provider.decide_route_call(&route.route, destination)),
            None => provider.decide_call(destination),
        }
    }

    /// Returns whether a call that was rejected for this reason is logged. Calls without the password and calls over
    /// the limit are rate-limited to one line every few seconds.
    pub(super) fn logs_rejection(&self, access_log: AccessLog, kind: ErrorKind) -> bool {
        let is_flood = matches!(kind, ErrorKind::ProxyAuthRequired | ErrorKind::LimitReached);
        if !is_flood || access_log == AccessLog::All {
            return true;
        }
        let Some(suppressed) = self.metrics.rejections().due() else {
            return false;
        };
        if suppressed > 0 {
            tracing::info!(
                listener = &*self.name,
                suppressed,
                "refused calls that were not logged"
            );
        }
        true
    }

    /// Returns the path prefix of a route; empty for all paths.
    pub(crate) fn route_prefix(&self) -> &str {
        self.route().map_or("", |route| &route.route.prefix)
    }

    /// Returns the route, if this is one.
    pub(crate) fn route(&self) -> Option<&RouteIngress> {
        match &self.kind {
            IngressKind::Route(route) => Some(route),
            IngressKind::Forward(_) | IngressKind::Intercepted(_) | IngressKind::NoRoute => None,
        }
    }
}

// === impl IngressKind ===

impl IngressKind {
    /// Returns the configured name of a route; empty for the other kinds.
    pub(crate) fn route_name(&self) -> Arc<str> {
        match self {
            Self::Route(route) => route.route.name.clone(),
            Self::Forward(_) | Self::Intercepted(_) | Self::NoRoute => Arc::default(),
        }
    }
}

// === impl RouteIngress ===

impl RouteIngress {
    /// Returns the decision for every call; `None` if it depends on each request's path, or on the location of a
    /// service that is not known yet.
    pub(crate) fn decide(&self, provider: &CredentialProvider) -> Option<DecidedCall> {
        provider.decide_route(&self.route, &self.decision)
    }
}

/// Fetches the locations of the services that these routes lead to. Errors are logged.
pub(crate) async fn locate_routes(provider: &CredentialProvider, routes: &[Arc<Ingress>]) {
    for service in routes.iter().filter_map(|ingress| ingress.service()) {
        if let Err(error) = provider.fetch_location(service).await {
            tracing::warn!(
                help = LogEntry::ServiceNotLocated.page(),
                "run://{service}: {error}"
            );
        }
    }
}
