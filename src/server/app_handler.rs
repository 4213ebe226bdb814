//! Serves the connections of apps, on any listener except the admin port.
//!
//! It classifies a connection when it is accepted, and selects the ingress if the connection alone determines it.

use std::sync::Arc;

use http::Version;

use super::accept::{ConnectionClass, ConnectionHandler, Server};
use super::connection_service::{ConnectionAddrs, ConnectionService, SharedListenerState};
use crate::error::{Error, ErrorKind};
use crate::proxy::{ClientConnection, InFlight, Ingress};

/// Advice for errors over a unix socket. The h2 crate rejects an `:authority` that is empty, a path, or
/// percent-encoded, before this code sees the request.
const AUTHORITY: &str = ". Over a unix socket, gRPC clients send the socket's path or nothing as :authority: set the channel \
                         option grpc.default_authority=localhost (in Go grpc.WithAuthority)";

/// Serves the connections of a listener, or the requests inside a tunnel.
#[derive(Clone, Debug)]
pub(super) struct AppHandler {
    serving: SharedListenerState,
    /// The ingress of the tunnel whose requests are served, if they are inside one.
    tunnel: Option<Arc<Ingress>>,
    /// Whether the connection belongs to a process of the tree that needs no password.
    is_own: bool,
    in_flight: Arc<InFlight>,
}

// === impl AppHandler ===

impl AppHandler {
    pub(super) fn new(server: &Server, serving: SharedListenerState) -> Self {
        Self {
            serving,
            tunnel: None,
            is_own: false,
            in_flight: server.in_flight.clone(),
        }
    }

    /// Returns this value for the requests inside a tunnel.
    pub(super) fn inside(self, tunnel: Arc<Ingress>) -> Self {
        Self {
            tunnel: Some(tunnel),
            ..self
        }
    }
}

impl ConnectionHandler for AppHandler {
    type Service = ConnectionService;

    fn class(&self) -> ConnectionClass {
        let listener = self.serving.load();
        if listener.ingresses.process_tree().is_some() {
            ConnectionClass::Unidentified
        } else if listener.ingresses.requires_auth() {
            ConnectionClass::Unauthenticated
        } else {
            ConnectionClass::App
        }
    }

    async fn identify(
        self,
        ConnectionAddrs { peer, local }: ConnectionAddrs,
    ) -> (Self, ConnectionClass) {
        let tree = self.serving.load().ingresses.process_tree().cloned();
        let is_own = match tree {
            Some(tree) => tree.holds(peer, local).await,
            None => false,
        };
        let class = if is_own {
            ConnectionClass::App
        } else {
            ConnectionClass::Unauthenticated
        };
        (Self { is_own, ..self }, class)
    }

    async fn service(
        &self,
        connection: ClientConnection,
        _: Option<ConnectionAddrs>,
    ) -> ConnectionService {
        let listener = self.serving.load_full();
        let connection_ingress = match &self.tunnel {
            Some(ingress) => Some(ingress.clone()),
            None => listener.ingresses.ingress_by_process(self.is_own),
        };
        if self.tunnel.is_none() {
            let metrics = &listener.ingresses.main_ingress().metrics;
            connection.state.set_gauge(metrics.connection_opened());
        }
        // The process needs no password, so its connection counts under `--max-connections` at once. Others count at
        // their first admitted request.
        if self.tunnel.is_none()
            && connection_ingress
                .as_ref()
                .is_some_and(|ingress| !ingress.requires_auth())
        {
            connection.state.admit();
        }
        // `listener` must be dropped here: a connection may stay open for days and must not keep a replaced
        // configuration.
        ConnectionService {
            serving: self.serving.clone(),
            connection_ingress,
            connection,
            in_flight: self.in_flight.clone(),
        }
    }

    fn malformed(&self, addrs: Option<ConnectionAddrs>, protocol: Version, error: &Error) {
        let listener = self.serving.load();
        let tunnel = self.tunnel.as_ref();
        // Only TCP connections have addresses.
        let on_unix = addrs.is_none() && tunnel.is_none();
        if on_unix && protocol == Version::HTTP_2 && error.kind() == ErrorKind::Malformed {
            let error = Error::new(error.kind(), format!("{}{AUTHORITY}", error.detail()));
            return listener.malformed(tunnel, protocol, &error);
        }
        listener.malformed(tunnel, protocol, error);
    }
}
