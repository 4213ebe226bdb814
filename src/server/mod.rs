//! Listeners, connections, and the selection of the ingress of a request.
//!
//! Every port, including the admin port, serves HTTP/1.1 and HTTP/2 with prior knowledge. `accept` accepts and drains
//! connections, `room` makes room for a new one, and `serve` serves it. `watchdog` enforces its deadlines, and `limits`
//! defines them. `connection_service` selects the ingress of each request, and calls [`proxy`](crate::proxy), which
//! handles the request.
//!
//! `malformed`, `parse_error` and `rejected` answer or report the requests that hyper and h2 reject without a call to
//! this code. `process_tree` and `sock_diag` find the process of a caller.

mod accept;
mod app_handler;
mod capacity;
mod client_stream;
mod connection_limits;
mod connection_service;
mod descriptors;
mod error_response_filter;
mod evictable;
mod heads;
mod io;
mod listener;
mod parse_error;
mod process_tree;
mod rejected;
mod serve;
#[cfg(target_os = "linux")]
mod sock_diag;
mod streams;
mod watchdog;

pub(crate) use accept::{ConnectionClass, ConnectionHandler, Server};
pub(crate) use connection_limits::IdleTimeout;
pub use connection_limits::ServerLimits;
pub(crate) use connection_service::{
    ConnectionAddrs, Ingresses, ListenerState, SharedListenerState,
};
pub(crate) use descriptors::{DescriptorLimit, raise_descriptor_limit};
pub(crate) use listener::{Listener, ListenerError};
pub(crate) use process_tree::ProcessTree;
