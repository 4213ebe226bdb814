//! The service that hyper calls for each request of a connection: it selects the ingress and calls the stack.

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

use super::process_tree::ProcessTree;
use crate::config::AccessLog;
use crate::destination::longest_prefix;
use crate::error::Error;
use crate::proxy::{
    ClientConnection, InFlight, Inbound, Ingress, Recorded, RequestBody, RequestRecord, Stack,
};

/// The ingresses of one listener.
#[derive(Clone, Debug)]
pub(crate) enum Ingresses {
    /// The forward proxy, or the inside of a tunnel through it.
    Forward(Arc<Ingress>),
    /// The forward proxy with two ingresses: one for the processes of a tree, one for all others.
    ByProcess {
        /// The processes that use `own`.
        tree: ProcessTree,
        /// For processes of the tree. It requires no credentials.
        own: Arc<Ingress>,
        /// For all other processes.
        others: Arc<Ingress>,
    },
    /// Routes, and the ingress of paths that no route has.
    Routes(Arc<[Arc<Ingress>]>, Arc<Ingress>),
}

/// The state with which one listener serves its requests. All of it comes from one configuration.
#[derive(Clone, Debug)]
pub(crate) struct ListenerState {
    /// Serves the requests.
    pub(crate) stack: Arc<Stack>,
    /// The listener's ingresses.
    pub(crate) ingresses: Ingresses,
    /// Which requests are logged.
    pub(crate) access_log: AccessLog,
}

/// The current state of a listener. A reload replaces it for later requests.
pub(crate) type SharedListenerState = Arc<ArcSwap<ListenerState>>;

/// Serves the requests of one connection.
#[derive(Debug)]
pub(super) struct ConnectionService {
    pub(super) serving: SharedListenerState,
    /// The ingress of all requests, if the connection decides it.
    pub(super) connection_ingress: Option<Arc<Ingress>>,
    pub(super) connection: ClientConnection,
    pub(super) in_flight: Arc<InFlight>,
}

pin_project! {
    /// The response to a request.
    ///
    /// A stream of an admitted HTTP/2 connection enters the stack when its task first runs. A stream that was reset
    /// before then takes no permit.
    #[project = Projected]
    #[allow(missing_debug_implementations)]
    pub(crate) enum RequestFuture {
        /// Not yet in the stack.
        Waiting { request: Option<(Arc<Stack>, Inbound)> },
        /// In the stack.
        Entered { #[pin] future: <Stack as Service<Inbound>>::Future },
    }
}

/// The two addresses of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAddrs {
    /// The app's address.
    pub(crate) peer: SocketAddr,
    /// The listener's address.
    pub(crate) local: SocketAddr,
}

// === impl Ingresses ===

impl Ingresses {
    /// Returns the ingresses of routes that share a listener. `no_route` answers paths that no route has.
    pub(crate) fn routes(routes: Vec<Arc<Ingress>>, no_route: Arc<Ingress>) -> Self {
        Self::Routes(routes.into(), no_route)
    }

    /// Returns the ingress whose metrics count the listener's connections.
    pub(crate) fn main_ingress(&self) -> &Arc<Ingress> {
        match self {
            Self::Forward(ingress)
            | Self::ByProcess {
                others: ingress, ..
            }
            | Self::Routes(_, ingress) => ingress,
        }
    }

    /// Returns the ingress of all requests of a connection, if it depends on the peer's process.
    pub(super) fn ingress_by_process(&self, is_own: bool) -> Option<Arc<Ingress>> {
        match self {
            Self::ByProcess { own, .. } if is_own => Some(own.clone()),
            Self::ByProcess { others, .. } => Some(others.clone()),
            Self::Forward(_) | Self::Routes(..) => None,
        }
    }

    /// Returns the processes that need no credentials.
    pub(super) fn process_tree(&self) -> Option<&ProcessTree> {
        match self {
            Self::ByProcess { tree, .. } => Some(tree),
            Self::Forward(_) | Self::Routes(..) => None,
        }
    }

    /// Returns whether a caller must authenticate.
    pub(super) fn requires_auth(&self) -> bool {
        self.main_ingress().requires_auth()
    }

    fn find(&self, path: &str) -> &Arc<Ingress> {
        match self {
            Self::Forward(ingress)
            | Self::ByProcess {
                others: ingress, ..
            } => ingress,
            Self::Routes(routes, no_route) => {
                longest_prefix(routes.iter(), |ingress| ingress.route_prefix(), path)
                    .unwrap_or(no_route)
            }
        }
    }
}

// === impl ListenerState ===

impl ListenerState {
    /// Counts and logs a request that could not be parsed, on a connection that may have an ingress of its own.
    pub(super) fn malformed(
        &self,
        connection_ingress: Option<&Arc<Ingress>>,
        protocol: Version,
        error: &Error,
    ) {
        let ingress = connection_ingress.unwrap_or_else(|| self.ingresses.main_ingress());
        self.stack
            .malformed(ingress, self.access_log, protocol, error);
    }
}

// === impl ConnectionService ===

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Recorded>;
    type Error = Error;
    type Future = RequestFuture;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let listener = self.serving.load();
        let ingress = match &self.connection_ingress {
            Some(ingress) => ingress,
            None => listener.ingresses.find(request.uri().path()),
        };
        let record = RequestRecord::begin(
            ingress,
            &request,
            &self.connection.state,
            &self.in_flight,
            listener.access_log,
        );
        let request = request.map(|body| RequestBody::incoming(body, &record));
        // The first request admits the connection. It must not wait: another connection could evict this one.
        let waits = request.version() == Version::HTTP_2 && self.connection.state.is_admitted();
        if request.version() == Version::HTTP_10 {
            self.connection.state.set_http10();
        }
        let inbound = Inbound {
            request,
            record,
            connection: self.connection.clone(),
        };
        if waits {
            RequestFuture::waiting(listener.stack.clone(), inbound)
        } else {
            RequestFuture::entered(&listener.stack, inbound)
        }
    }
}

// === impl RequestFuture ===

impl RequestFuture {
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

impl Future for RequestFuture {
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
