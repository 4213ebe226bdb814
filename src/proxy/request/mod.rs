//! A request on its way, as far as it is known.

pub(crate) mod body;
pub(crate) mod joined;
pub(crate) mod record;
pub(crate) mod trailers;

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;

use self::body::RequestBody;
use self::record::RequestRecord;
use crate::destination::Destination;
use crate::policy::Decision;
use crate::proxy::connection::ConnectionState;
use crate::token::Slot;

/// What a connection of an app tells about every request on it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The address it came to; `None` on a unix socket.
    pub local: Option<SocketAddr>,
    /// What it has done so far.
    pub state: Arc<ConnectionState>,
}

/// A request as it came in; its destination is not looked at yet.
#[derive(Debug)]
pub struct Inbound {
    /// Head and body as hyper parsed them.
    pub request: Request<RequestBody>,
    /// Its life, for metrics and logs.
    pub record: Arc<RequestRecord>,
    /// The connection that it came on.
    pub connection: Connection,
}

/// A request whose destination is sure.
#[derive(Debug)]
pub struct Call {
    /// Head and body; its URI is not used any more.
    pub request: Request<RequestBody>,
    /// Its life, for metrics and logs.
    pub record: Arc<RequestRecord>,
    /// Where it goes.
    pub destination: Destination,
    /// The app called it by a service's name, which stands for the destination.
    pub named: bool,
    /// The app called it by `http://`, and it goes out over TLS.
    pub over_tls: bool,
    /// The app asks for another protocol on this connection (RFC 9110, 7.8).
    pub upgrade: bool,
    /// The response's body brings a copy of the request with it, to send it again.
    pub keep: bool,
}

/// A request and what the policy says of it.
#[derive(Debug)]
pub struct Decided {
    /// The request.
    pub call: Call,
    /// What its destination gets.
    pub decision: Arc<Decision>,
    /// Where that token is kept; `None` where the decision is none.
    pub slot: Option<Arc<Slot>>,
}
