//! The use of a connection by one request.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{h1, h2};
use crate::memory::Memory;
use crate::upstream::cancellable_body::{CancelHandle, SendableBody};
use crate::upstream::receive_state::ReceiveState;

/// A connection for one request, and the guard that returns it.
pub(in crate::upstream) struct Lease<B> {
    pub(in crate::upstream) connection: LeasedConnection<B>,
    pub(in crate::upstream) guard: ConnectionGuard,
    /// The connection was idle. A close by the upstream may not have been read yet.
    pub(super) needs_check: bool,
}

/// The connection of a lease.
pub(in crate::upstream) enum LeasedConnection<B> {
    Http1 {
        connection: Arc<h1::Http1Connection<B>>,
        /// The connection has carried a request before. The upstream may have closed it since.
        reused: bool,
    },
    Http2(Arc<h2::Http2Connection<B>>),
}

/// Reserves a connection or a stream for a request and its response. A drop before [`ConnectionGuard::complete`] closes
/// the connection or resets the stream.
pub(in crate::upstream) struct ConnectionGuard {
    connection: Option<Arc<dyn Release>>,
    parts: ReleasedParts,
    /// The connection cannot carry another request.
    not_reusable: bool,
}

/// The values that are released with the guard.
#[derive(Default)]
pub(in crate::upstream) struct ReleasedParts {
    /// HTTP/1.1: a permit of the target's connections in use.
    _permit: Option<OwnedSemaphorePermit>,
    /// Its drop cancels the request's body.
    cancel: Option<CancelHandle>,
}

/// A connection that a [`ConnectionGuard`] releases, independent of the type of the request's body.
pub(in crate::upstream) trait Release: Send + Sync {
    /// Called at the end of the request. `complete`: its response was read to the end.
    fn ended(self: Arc<Self>, parts: ReleasedParts, complete: bool);

    /// Returns the memory budget of the connection.
    fn memory(&self) -> &Memory;

    /// HTTP/1.1: returns the state of the socket. A connection of HTTP/2 carries other streams too.
    fn receive_state(&self) -> Option<&ReceiveState>;
}

// === impl Lease ===

impl<B: SendableBody> Lease<B> {
    pub(super) fn http1(
        connection: Arc<h1::Http1Connection<B>>,
        permit: OwnedSemaphorePermit,
        reused: bool,
        needs_check: bool,
    ) -> Self {
        Self {
            connection: LeasedConnection::Http1 {
                connection: Arc::clone(&connection),
                reused,
            },
            guard: ConnectionGuard {
                connection: Some(connection),
                parts: ReleasedParts {
                    _permit: Some(permit),
                    cancel: None,
                },
                not_reusable: false,
            },
            needs_check,
        }
    }

    /// Creates a lease of a stream that is already counted: see [`h2::Http2Connections`].
    pub(super) fn http2(connection: Arc<h2::Http2Connection<B>>, needs_check: bool) -> Self {
        Self {
            connection: LeasedConnection::Http2(Arc::clone(&connection)),
            guard: ConnectionGuard {
                connection: Some(connection),
                parts: ReleasedParts::default(),
                not_reusable: false,
            },
            needs_check,
        }
    }

    /// Returns whether no close by the upstream has been read.
    pub(super) fn is_open(&self) -> bool {
        match &self.connection {
            LeasedConnection::Http1 { connection, .. } => connection.is_ready(),
            LeasedConnection::Http2(connection) => connection.is_open(),
        }
    }
}

// === impl ConnectionGuard ===

impl ConnectionGuard {
    /// Cancels the request's body when this guard is dropped.
    pub(in crate::upstream) fn watch(&mut self, cancel: Option<CancelHandle>) {
        self.parts.cancel = cancel;
    }

    /// Marks a connection of HTTP/1.1 that cannot be reused, because the request's body will not be sent.
    pub(in crate::upstream) fn mark_not_reusable(&mut self) {
        self.not_reusable = true;
    }

    /// Returns the connection, until the response was read to its end.
    pub(in crate::upstream) fn connection(&self) -> Option<&dyn Release> {
        self.connection.as_deref()
    }

    /// Called when the response was read to its end.
    pub(in crate::upstream) fn complete(mut self) {
        self.end(true);
    }

    fn end(&mut self, complete: bool) {
        if let Some(connection) = self.connection.take() {
            let complete = complete && !self.not_reusable;
            connection.ended(std::mem::take(&mut self.parts), complete);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.end(false);
    }
}
