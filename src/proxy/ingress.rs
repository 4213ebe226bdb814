//! By which way a request came in, and what that says of its destination.

use std::fmt;
use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::config::{AccessLog, HttpVersion, Route};
use crate::destination::Origin;
use crate::error::ErrorKind;
use crate::policy::ServiceName;
use crate::proxy::credentials::Resolved;
use crate::telemetry::ListenerMetrics;

/// One way in: a route, the forward proxy, an opened tunnel, or a listener's paths that no route has.
#[derive(Debug)]
pub struct Ingress {
    /// The metrics' `listener`.
    pub name: Arc<str>,
    /// Its handles, resolved once.
    pub metrics: Arc<ListenerMetrics>,
    /// What kind it is.
    pub kind: IngressKind,
}

/// The kinds of ingress.
#[derive(Debug)]
pub enum IngressKind {
    /// A reverse route.
    Route(Box<RouteIngress>),
    /// The forward proxy: absolute-form requests and `CONNECT`.
    Forward(ForwardProxy),
    /// Inside a `CONNECT` to this origin, whose TLS we have opened, or in which HTTP is spoken in cleartext: requests are for it
    /// alone.
    Intercepted(Origin),
    /// A path without a route: 404.
    NoRoute,
}

/// A reverse route at run time.
pub struct RouteIngress {
    /// As configured.
    pub route: Route,
    /// Which HTTP is spoken with its upstream.
    pub http: HttpVersion,
    /// The decision and its slot, once taken, where they are the same for every path.
    pub resolved: OnceLock<Resolved>,
}

/// The forward proxy at run time.
#[derive(Debug)]
pub struct ForwardProxy {
    /// The only `Proxy-Authorization` that is let in, where one is asked for.
    pub auth: Option<HeaderValue>,
}

impl fmt::Debug for RouteIngress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteIngress")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl Ingress {
    /// The service that a route leads to, where it knows no more than its name.
    pub fn service(&self) -> Option<&ServiceName> {
        self.route()?.route.service.as_ref()
    }

    /// Whether a caller must prove that it may come in this way (`--proxy-auth`).
    pub fn asks_for_proof(&self) -> bool {
        match &self.kind {
            IngressKind::Forward(forward) => forward.auth.is_some(),
            IngressKind::Route(_) | IngressKind::Intercepted(_) | IngressKind::NoRoute => false,
        }
    }

    /// Whether a call that was refused for this reason is logged. One line in a few seconds stands for all callers without
    /// the password or over the limit.
    pub(super) fn logs_refusal(&self, access_log: AccessLog, kind: ErrorKind) -> bool {
        let is_flood = matches!(kind, ErrorKind::ProxyAuthRequired | ErrorKind::LimitReached);
        if !is_flood || access_log == AccessLog::All {
            return true;
        }
        let Some(suppressed) = self.metrics.refusals().due() else {
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

    /// The route, where it is one.
    pub fn route(&self) -> Option<&RouteIngress> {
        match &self.kind {
            IngressKind::Route(route) => Some(route),
            IngressKind::Forward(_) | IngressKind::Intercepted(_) | IngressKind::NoRoute => None,
        }
    }
}

impl IngressKind {
    /// The name of the route as configured; empty for what is none.
    pub fn route_name(&self) -> Arc<str> {
        match self {
            Self::Route(route) => route.route.name.clone(),
            Self::Forward(_) | Self::Intercepted(_) | Self::NoRoute => Arc::default(),
        }
    }
}
