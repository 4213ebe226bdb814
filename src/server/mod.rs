//! Who comes in: listeners, connections, and the entrance that a request takes.
//!
//! HTTP/1.1 and HTTP/2 by prior knowledge on every port. Connections are counted and drained here; what a request means
//! is the [`proxy`](crate::proxy)'s business.

mod family;
mod front;
mod listener;
mod serve;

pub use family::Family;
pub use front::{Entrances, Front, Served, Serving};
pub use listener::{Listener, ListenerError, Socket};
pub use serve::{Limits, Server};
