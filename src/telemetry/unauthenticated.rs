//! Upstreams that reject calls that carried no token of ours.

use http::StatusCode;
use tracing::field;

use super::rate_limit::RateLimiter;
use super::trace::TraceContext;
use crate::destination::Origin;
use crate::policy::SkipReason;

/// An upstream's 401 or 403 to a call without a token of ours.
#[derive(Clone, Copy, Debug)]
pub struct BareRejection<'a> {
    /// Who answered.
    pub origin: &'a Origin,
    /// 401 or 403.
    pub status: StatusCode,
    /// Why no token was added although one was due.
    pub skipped: Option<SkipReason>,
    /// The rule that decided.
    pub rule: Option<&'a str>,
    /// The trace of the request.
    pub trace: Option<TraceContext>,
}

/// Logs the rejection at most once a minute per destination. Where a credential of the app's own was kept, it says what to do.
pub fn bare_rejected(limiter: &RateLimiter, rejection: &BareRejection<'_>) {
    let BareRejection {
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
    let trace = rejection.trace.as_ref();
    let reason = rejection.skipped.map(SkipReason::as_str);
    let mut said = format!(
        "{origin} answered {} to {}",
        status.as_u16(),
        rejection.what()
    );
    if own {
        said = format!("{said}: {ADVICE}");
    }
    tracing::warn!(
        {
            destination = %origin,
            status = status.as_u16(),
            reason,
            rule,
            "logging.googleapis.com/trace" = trace.map(|trace| field::display(trace.trace_id())),
            "logging.googleapis.com/spanId" = trace.and_then(TraceContext::span_id).map(field::display),
            "logging.googleapis.com/trace_sampled" = trace.map(TraceContext::sampled),
        },
        "{said}",
    );
}

/// What to do where a credential of the app's own was rejected.
pub(super) const ADVICE: &str = "to send a token instead, let the app send no credential, or the placeholder sidentity as its key (or a value of \
                                 --placeholder); existing=replace on the rule or route replaces an Authorization";

// === impl BareRejection ===

impl BareRejection<'_> {
    /// The app sent a credential of its own, which was kept.
    pub const fn is_own(&self) -> bool {
        matches!(
            self.skipped,
            Some(SkipReason::Existing | SkipReason::ApiKey)
        )
    }

    /// What the call carried.
    pub(super) fn what(&self) -> String {
        match self.skipped {
            Some(SkipReason::Existing) => {
                "the app's own credential, which was kept, so that no token was added".to_owned()
            }
            Some(SkipReason::ApiKey) => {
                "the app's own API key, which was kept, so that no token was added".to_owned()
            }
            Some(reason) => format!("a call without a token: {}", reason.why()),
            None => "a call without a token".to_owned(),
        }
    }
}
