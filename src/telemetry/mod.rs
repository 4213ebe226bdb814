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
mod stderr;
mod text;
mod trace;
mod unauthenticated;

pub use access::AccessRecord;
pub(crate) use access::Carried;
pub(crate) use access::Redacted;
pub use access::access_log;
pub use code::Code;
pub(crate) use counts::Counts;
pub use hints::auth_rejected;
pub(crate) use hints::interception_failed;
pub use hints::tunnel_without_token;
pub(crate) use labels::Connect;
pub use labels::Fetch;
pub use labels::Lookup;
pub(crate) use listener::{GaugeGuard, ListenerMetrics};
pub use log::Logger;
pub(crate) use log::adjust;
pub use log::init;
pub use log::set_project;
pub use metrics::Metrics;
pub(crate) use metrics::TEXT_FORMAT;
pub(crate) use rate_limit::LogThrottle;
pub use rate_limit::RateLimiter;
pub use trace::TraceContext;
pub(crate) use unauthenticated::unauthenticated_rejected;
