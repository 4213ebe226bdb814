//! Listeners, connections, and the selection of the ingress of a request.
//!
//! Every port serves HTTP/1.1 and HTTP/2 with prior knowledge, the admin port too. One function serves a connection
//! with its deadlines and limits. This module counts and drains connections. [`proxy`](crate::proxy) handles the
//! requests.

mod accept;
mod app_connections;
mod connection_service;
mod descriptors;
mod evictable;
mod heads;
mod io;
mod limits;
mod listener;
mod malformed;
mod parse_error;
mod process_tree;
mod rejected;
mod room;
mod serve;
#[cfg(target_os = "linux")]
mod sock_diag;
mod streams;
mod watchdog;

pub(crate) use accept::{Application, ConnectionClass, Server};
pub(crate) use connection_service::{ConnectionAddrs, Ingresses, ListenerState, Serving};
pub(crate) use descriptors::{DescriptorLimit, raise_descriptor_limit};
pub(crate) use limits::IdleTimeout;
pub use limits::ServerLimits;
pub(crate) use listener::{Listener, ListenerError};
pub(crate) use process_tree::ProcessTree;
