//! Logs rejections of calls that carried no token of ours.

use tracing::field;

use super::rate_limit::RateLimiter;
use super::trace::TraceContext;
use crate::diagnostics::{LogEntry, OWN_CREDENTIAL_ADVICE, UnauthenticatedRejection};
use crate::policy::SkipReason;

/// Logs the rejection at most once a minute per destination. Adds advice if a credential of the app was kept.
pub(crate) fn unauthenticated_rejected(
    limiter: &RateLimiter,
    rejection: &UnauthenticatedRejection<'_>,
    trace: Option<TraceContext>,
) {
    let UnauthenticatedRejection {
        origin,
        status,
        rule,
        ..
    } = rejection;
    let own = rejection.is_own();
    let kind = if own { "own" } else { "bare" };
    if !limiter.is_due(&format!("{kind} {origin}")) {
        return;
    }
    let trace = trace.as_ref();
    let reason = rejection.skipped.map(SkipReason::as_str);
    let mut message = format!(
        "{origin} answered {} to {}",
        status.as_u16(),
        rejection.what()
    );
    let mut entry = LogEntry::UnauthenticatedRejected;
    if own {
        message = format!("{message}: {OWN_CREDENTIAL_ADVICE}");
        entry = LogEntry::AppCredentialRejected;
    }
    tracing::warn!(
        {
            destination = %origin,
            status = status.as_u16(),
            reason,
            rule,
            help = entry.page(),
            "logging.googleapis.com/trace" = trace.map(|trace| field::display(trace.trace_id())),
            "logging.googleapis.com/spanId" = trace.and_then(TraceContext::span_id).map(field::display),
            "logging.googleapis.com/trace_sampled" = trace.map(TraceContext::sampled),
        },
        "{message}",
    );
}
