//! Metric families with closed labels, and logs in the format that Cloud Logging reads.
//!
//! Counting is lock-free on handles that are resolved once. There are no spans: a request costs at most one log line,
//! written when it ends, and an event below the level costs one comparison. No value of a token, no query and no
//! user-info of a URL reaches a line or a label from here.

mod access;
mod cloud_logging;
mod code;
mod counts;
mod escape;
mod hints;
mod labels;
mod listener;
mod log;
mod metrics;
mod panics;
mod process;
mod rate_limit;
mod text;
mod trace;
mod unauthenticated;

pub use access::{AccessRecord, Carried, Redacted, access_log};
pub use code::Code;
pub use counts::Counts;
pub use hints::{auth_rejected, auth_rejected_of, interception_failed, tunnel_without_token};
pub use labels::{Connect, Fetch, Lookup};
pub use listener::{GaugeGuard, ListenerMetrics};
pub use log::{Logger, adjust, init, set_project};
pub use metrics::{Metrics, TEXT_FORMAT};
pub use rate_limit::{LineLimit, LogThrottle, RateLimiter};
pub use trace::TraceContext;
pub use unauthenticated::unauthenticated_rejected;
