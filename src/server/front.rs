//! The front of the stack: which ingress a request takes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::family::Family;
use crate::config::AccessLog;
use crate::error::Error;
use crate::proxy::{
    Connection, InFlight, Inbound, Ingress, Recorded, RequestBody, RequestRecord, Stack,
};
use crate::telemetry::Gauged;

/// The ingresses of one listener.
#[derive(Clone, Debug)]
pub enum Ingresses {
    /// The forward proxy, or the inside of a tunnel through it.
    Forward(Arc<Ingress>),
    /// The forward proxy, by two ingresses: one for these processes, and one for all others.
    Family {
        /// Whom the first is for.
        family: Family,
        /// For them.
        own: Arc<Ingress>,
        /// For strangers.
        others: Arc<Ingress>,
    },
    /// Routes by prefix, longest first; what none of them takes goes no_route.
    Routes(Arc<[Arc<Ingress>]>, Arc<Ingress>),
}

/// What the requests of one listener meet: all of it from one configuration.
#[derive(Clone, Debug)]
pub struct Served {
    /// Their path.
    pub stack: Arc<Stack>,
    /// Their ways in.
    pub ingresses: Ingresses,
    /// Which of them are logged.
    pub access_log: AccessLog,
}

/// What a listener serves now. A reload puts another in its place, for the requests that come then.
pub type Serving = Arc<ArcSwap<Served>>;

/// What hyper calls for every request of one connection.
#[derive(Debug)]
pub struct Front {
    pub(super) serving: Serving,
    /// Where all of this connection goes the same way, whatever its requests say.
    pub(super) fixed: Option<Arc<Ingress>>,
    pub(super) connection: Connection,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) _counted: Gauged,
}

pin_project! {
    /// The answer to a request.
    ///
    /// A stream of an admitted HTTP/2 connection enters the stack when its task first runs: hyper then notices at once if
    /// it was reset, so that streams reset before that hold no permits.
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub enum Entry {
        /// Not yet in the stack.
        Waiting { request: Option<(Arc<Stack>, Inbound)> },
        /// In the stack.
        Entered { #[pin] future: <Stack as Service<Inbound>>::Future },
    }
}

/// The two addresses of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The app's.
    pub far: SocketAddr,
    /// Ours.
    pub near: SocketAddr,
}

// === impl Ingresses ===

impl Ingresses {
    /// Routes that share a listener; `no_route` answers for paths that none of them has.
    pub fn routes(mut routes: Vec<Arc<Ingress>>, no_route: Arc<Ingress>) -> Self {
        routes.sort_by_key(|ingress| {
            std::cmp::Reverse(ingress.route().map_or(0, |route| route.route.prefix.len()))
        });
        Self::Routes(routes.into(), no_route)
    }

    /// The ingress that stands for the listener itself, for counting its connections.
    pub fn listener(&self) -> &Arc<Ingress> {
        match self {
            Self::Forward(ingress)
            | Self::Family {
                others: ingress, ..
            }
            | Self::Routes(_, ingress) => ingress,
        }
    }

    /// The ingress of a whole connection, where it depends on whose it is.
    pub(super) fn fixed(&self, is_own: bool) -> Option<Arc<Ingress>> {
        match self {
            Self::Family { own, .. } if is_own => Some(own.clone()),
            Self::Family { others, .. } => Some(others.clone()),
            Self::Forward(_) | Self::Routes(..) => None,
        }
    }

    /// The processes that need no proof.
    pub(super) fn family(&self) -> Option<&Family> {
        match self {
            Self::Family { family, .. } => Some(family),
            Self::Forward(_) | Self::Routes(..) => None,
        }
    }

    /// Whether a caller must prove that it may use this listener.
    pub(super) fn asks_for_proof(&self) -> bool {
        self.listener().asks_for_proof()
    }

    fn find(&self, path: &str) -> &Arc<Ingress> {
        match self {
            Self::Forward(ingress)
            | Self::Family {
                others: ingress, ..
            } => ingress,
            Self::Routes(routes, no_route) => routes
                .iter()
                .find(|ingress| {
                    ingress
                        .route()
                        .is_some_and(|route| is_under(path, &route.route.prefix))
                })
                .unwrap_or(no_route),
        }
    }
}

// === impl Served ===

impl Served {
    /// Counts and logs a request that could not be parsed, on a connection that may have an ingress of its own.
    pub(super) fn malformed(&self, fixed: Option<&Arc<Ingress>>, protocol: Version, error: &Error) {
        let ingress = fixed.unwrap_or_else(|| self.ingresses.listener());
        self.stack
            .malformed(ingress, self.access_log, protocol, error);
    }
}

/// Whole segments: `/v1` is under `/v1`, `/v10` is not.
fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

// === impl Front ===

impl Service<Request<Incoming>> for Front {
    type Response = Response<Recorded>;
    type Error = Error;
    type Future = Entry;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let served = self.serving.load();
        let ingress = match &self.fixed {
            Some(ingress) => ingress,
            None => served.ingresses.find(request.uri().path()),
        };
        let record = RequestRecord::begin(
            ingress,
            &request,
            &self.connection.state,
            &self.in_flight,
            served.access_log,
        );
        let request = request.map(|body| RequestBody::incoming(body, &record));
        // The first request is what admits a connection, before another one may take its place.
        let waits = request.version() == Version::HTTP_2 && self.connection.state.is_admitted();
        let inbound = Inbound {
            request,
            record,
            connection: self.connection.clone(),
        };
        if waits {
            Entry::waiting(served.stack.clone(), inbound)
        } else {
            Entry::entered(&served.stack, inbound)
        }
    }
}

// === impl Entry ===

impl Entry {
    fn waiting(stack: Arc<Stack>, inbound: Inbound) -> Self {
        Self::Waiting {
            request: Some((stack, inbound)),
        }
    }

    fn entered(stack: &Stack, inbound: Inbound) -> Self {
        Self::Entered {
            future: stack.call(inbound),
        }
    }
}

impl Future for Entry {
    type Output = Result<Response<Recorded>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Projected::Waiting { request } = self.as_mut().project() {
            let Some((stack, inbound)) = request.take() else {
                return Poll::Pending;
            };
            self.set(Self::entered(&stack, inbound));
        }
        match self.project() {
            Projected::Waiting { .. } => Poll::Pending,
            Projected::Entered { future } => future.poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_under;

    #[test]
    fn a_prefix_matches_whole_segments() {
        assert!(is_under("/v1", "/v1"));
        assert!(is_under("/v1/", "/v1"));
        assert!(is_under("/v1/x", "/v1"));
        assert!(is_under("/anything", ""));
        assert!(!is_under("/v10", "/v1"));
        assert!(!is_under("/v", "/v1"));
    }
}
