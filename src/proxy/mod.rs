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
//! | `in_flight` | counts the requests in flight, for the drain |
//! | `connection` | the state of a client's connection, for limits and deadlines |
//! | `malformed` | requests that could not be parsed |
//! | `problem` | error responses |
//! | `service` | the trait and the future that all layers share |

mod connection;
mod credentials;
mod error_response;
mod headers;
mod in_flight;
mod ingress;
mod layers;
mod malformed;
mod request;
mod service;
mod stack;
mod tunnel;

pub(crate) use connection::{
    ConnectionState, Connections, InProgress, TooManyAnswers, polled_own_answer,
};
pub(crate) use credentials::{CredentialProvider, RouteDecision, UNIVERSE_TIMEOUT};
pub(crate) use headers::browser::{is_cross_site, is_from_host, is_ours};
pub use headers::hop_by_hop::strip_request;
pub use headers::hop_by_hop::strip_response;
pub(crate) use headers::host::{host_text, is_authority};
pub use headers::length::normalize_length;
pub(crate) use in_flight::InFlight;
pub(crate) use ingress::{ForwardProxy, Ingress, IngressKind, RouteIngress, locate_routes};
pub(crate) use layers::record::Recorded;
pub(crate) use malformed::rejection;
pub(crate) use request::body::{RequestBody, leave_head, next_of};
pub(crate) use request::record::RequestRecord;
pub use request::trailers::strip_trailers;
pub(crate) use request::{ClientConnection, Inbound};
pub(crate) use stack::{SharedState, Stack, StackDeps, stack};
pub(crate) use tunnel::intercept::{Interception, OpenedTunnel, OpenedTunnelSender};
