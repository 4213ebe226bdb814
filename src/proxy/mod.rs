//! The request's path: from what an app sent to what the upstream gets, and back.
//!
//! [`stack`](self::stack()) composes the tower layers, one layer a file. A request changes its type as more is known of it:
//! [`Inbound`] as it came in, [`Call`] once its destination is sure, [`Decided`] once the policy has spoken.

mod activity;
mod authenticate;
mod authority;
mod authorize;
mod bare;
mod body;
mod browser;
mod call;
mod connect;
mod connection;
mod deadline;
mod decide;
mod discover;
mod entrance;
mod exchange;
mod guard;
mod hop_by_hop;
mod iap;
mod intercept;
mod joined;
mod length;
mod limit;
mod malformed;
mod max_forwards;
mod normalize;
mod proxy_status;
mod reauthorize;
mod record;
mod relocate;
mod replay;
mod rescue;
mod send;
mod stack;
mod step;
mod trailers;
mod upgrade;

pub use activity::Activity;
pub use authority::{host_text, is_authority};
pub use body::{Body, RequestBody, leave_head, next_of};
pub use browser::{is_cross_site, is_from_host, is_ours};
pub use call::{Call, Connection, Decided, Inbound};
pub use connection::{ConnectionState, Connections, InProgress, TooManyAnswers, polled_own_answer};
pub use decide::{Decider, Resolved};
pub use entrance::{Entrance, Forward, RouteEntrance, Way};
pub use exchange::Exchange;
pub use hop_by_hop::{Named, strip_request, strip_response};
pub use intercept::{Interception, Opened, OpenedSender};
pub use length::{InvalidLength, normalize_length};
pub use malformed::refusal;
pub use record::Recorded;
pub use stack::{Common, Parts, Stack, stack};
pub use trailers::{FilteredTrailers, strip_trailers};
