//! One request's use of a connection.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{h1, h2};
use crate::memory::Memory;
use crate::upstream::outgoing::{Interest, RequestBody};

/// A connection for one request, and what must be given back after it.
pub(in crate::upstream) struct Lease<B> {
    pub(in crate::upstream) way: Way<B>,
    pub(in crate::upstream) hold: Hold,
    /// It was idle for a while: there may be news of it that nobody has read yet.
    pub(super) napped: bool,
}

/// Over which HTTP.
pub(in crate::upstream) enum Way<B> {
    Http1 {
        connection: Arc<h1::Connection<B>>,
        /// It has carried a request before, and may have been closed since without our knowing.
        reused: bool,
    },
    Http2(Arc<h2::Connection<B>>),
}

/// Keeps a connection, or one of its streams, for a request and its response. Dropped before [`Hold::complete`], it
/// gives both up.
pub(in crate::upstream) struct Hold {
    connection: Option<Arc<dyn Held>>,
    rest: Rest,
    /// The connection is of no use for another request, however this one ends.
    spoilt: bool,
}

/// What ends with the hold.
#[derive(Default)]
pub(super) struct Rest {
    /// HTTP/1.1: a place among the target's connections in use.
    _permit: Option<OwnedSemaphorePermit>,
    /// The request's body goes on as long as this lives.
    interest: Option<Interest>,
}

/// A connection as a [`Hold`] sees it, whatever the request's body is.
pub(super) trait Held: Send + Sync {
    /// The exchange is over; `complete` if its response was read to the end.
    fn ended(self: Arc<Self>, rest: Rest, complete: bool);

    fn memory(&self) -> &Memory;
}

// === impl Lease ===

impl<B: RequestBody> Lease<B> {
    pub(super) fn http1(
        connection: Arc<h1::Connection<B>>,
        permit: OwnedSemaphorePermit,
        reused: bool,
        napped: bool,
    ) -> Self {
        Self {
            way: Way::Http1 {
                connection: Arc::clone(&connection),
                reused,
            },
            hold: Hold {
                connection: Some(connection),
                rest: Rest {
                    _permit: Some(permit),
                    interest: None,
                },
                spoilt: false,
            },
            napped,
        }
    }

    /// The stream is counted already: see [`h2::Streams`].
    pub(super) fn http2(connection: Arc<h2::Connection<B>>, napped: bool) -> Self {
        Self {
            way: Way::Http2(Arc::clone(&connection)),
            hold: Hold {
                connection: Some(connection),
                rest: Rest::default(),
                spoilt: false,
            },
            napped,
        }
    }

    /// The upstream has not closed it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        match &self.way {
            Way::Http1 { connection, .. } => connection.is_ready(),
            Way::Http2(connection) => connection.is_open(),
        }
    }
}

// === impl Hold ===

impl Hold {
    /// The request's body ends with this hold.
    pub(in crate::upstream) fn watch(&mut self, interest: Option<Interest>) {
        self.rest.interest = interest;
    }

    /// HTTP/1.1: the request's body will not be sent, and on this connection nothing else can be.
    pub(in crate::upstream) fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// The budget that the connection counts against.
    pub(in crate::upstream) fn memory(&self) -> Option<&Memory> {
        self.connection
            .as_ref()
            .map(|connection| connection.memory())
    }

    /// The response was read to its end.
    pub(in crate::upstream) fn complete(mut self) {
        self.end(true);
    }

    fn end(&mut self, complete: bool) {
        if let Some(connection) = self.connection.take() {
            let complete = complete && !self.spoilt;
            connection.ended(std::mem::take(&mut self.rest), complete);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end(false);
    }
}
