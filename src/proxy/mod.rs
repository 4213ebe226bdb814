//! The request path: from what an app sent to what the upstream receives, and back.
//!
//! | module | purpose |
//! |---|---|
//! | `stack` | composes the tower layers in one expression |
//! | `layers` | the layers, one a file |
//! | `request` | the request as it becomes known; its bodies, its record |
//! | `headers` | rules for header fields and trailers |
//! | `ingress` | how a request came in |
//! | `tunnel` | `CONNECT` and upgrades |
//! | `credentials` | policy and tokens together |
//! | `connection` | the state of a client's connection, for limits and deadlines |
//! | `problem` | error responses |

mod connection;
mod credentials;
mod headers;
mod in_flight;
mod ingress;
mod layers;
mod malformed;
mod problem;
mod request;
mod service;
mod stack;
mod tunnel;

pub use connection::{ConnectionState, Connections, InProgress, TooManyAnswers, polled_own_answer};
pub use credentials::{CredentialProvider, Resolved, RouteDecision};
pub use headers::authority::{host_text, is_authority};
pub use headers::browser::{is_cross_site, is_from_host, is_ours};
pub use headers::hop_by_hop::{Named, strip_request, strip_response};
pub use headers::length::{InvalidLength, normalize_length};
pub use in_flight::InFlight;
pub use ingress::{ForwardProxy, Ingress, IngressKind, RouteIngress, locate_routes};
pub use layers::record::Recorded;
pub use malformed::refusal;
pub use request::body::{Body, RequestBody, leave_head, next_of};
pub use request::record::RequestRecord;
pub use request::trailers::{FilteredTrailers, strip_trailers};
pub use request::{Connection, Inbound};
pub use stack::{SharedState, Stack, StackDeps, stack};
pub use tunnel::intercept::{Interception, OpenedTunnel, OpenedTunnelSender};
