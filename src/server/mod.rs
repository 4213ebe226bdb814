//! Who comes in: listeners, connections, and the ingress that a request takes.
//!
//! HTTP/1.1 and HTTP/2 by prior knowledge on every port, the admin port's too: one function serves a connection, with its
//! deadlines and limits. Connections are counted and drained here; what a request means is the
//! [`proxy`](crate::proxy)'s business.

mod accept;
mod app;
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

pub use accept::{Application, Class, Server};
pub use connection_service::{
    ConnectionAddrs, ConnectionService, Ingresses, ListenerState, Serving,
};
pub use descriptors::{DescriptorLimit, raise_descriptor_limit};
pub use io::Protocol;
pub use limits::{IdleTimeout, Limits};
pub use listener::{Listener, ListenerError, Socket};
pub use process_tree::ProcessTree;
pub use serve::HttpService;
