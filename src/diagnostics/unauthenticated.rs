//! Upstreams that reject calls without a token of the sidecar.

use http::StatusCode;

use crate::destination::Origin;
use crate::policy::SkipReason;

/// An upstream's 401 or 403 to a call without a token of the sidecar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnauthenticatedRejection<'a> {
    /// The origin that answered.
    pub(crate) origin: &'a Origin,
    /// 401 or 403.
    pub(crate) status: StatusCode,
    /// The reason that no token was added although the decision grants one.
    pub(crate) skipped: Option<SkipReason>,
    /// The rule that decided.
    pub(crate) rule: Option<&'a str>,
}

/// The advice if a credential of the app was rejected.
pub(crate) const ADVICE: &str = "to send a token instead, let the app send no credential, or the placeholder sidentity as its key (or a value of \
                                 --placeholder); existing=replace on the rule or route replaces an Authorization";

// === impl UnauthenticatedRejection ===

impl UnauthenticatedRejection<'_> {
    /// Returns whether the app sent a credential, which was kept.
    pub(crate) const fn is_own(&self) -> bool {
        matches!(
            self.skipped,
            Some(SkipReason::Existing | SkipReason::ApiKey)
        )
    }

    /// Describes the credential of the call.
    pub(crate) fn what(&self) -> String {
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
