//! Messages to users: titles and advice of errors, rejections and tunnels without a token, the last errors, and the
//! history of the last 15 minutes. Log, status page and operating guide use the same text.

mod advice;
mod error_page;
mod hidden;
mod history;
mod log_entry;
mod recent;
mod rejection;
mod source_advice;
pub(crate) mod startup;
mod tunnel;
mod unauthenticated;

pub(crate) use hidden::is_hidden;
pub(crate) use history::latency::Latencies;
pub(crate) use history::latency::LatencyCounts;
pub(crate) use history::{History, RequestOutcome, Series};
pub use log_entry::LogEntry;
pub(crate) use recent::{RecentError, RecentErrors};
pub use rejection::AuthRejection;
pub use tunnel::NoTokenReason;
pub(crate) use unauthenticated::ADVICE as OWN_CREDENTIAL_ADVICE;
pub(crate) use unauthenticated::UnauthenticatedRejection;
