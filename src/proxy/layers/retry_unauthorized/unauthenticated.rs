//! Rejections of requests that carry no token of ours.

use std::sync::Arc;

use http::StatusCode;

use crate::diagnostics::UnauthenticatedRejection;
use crate::policy::SkipReason;
use crate::proxy::request::record::RequestRecord;
use crate::telemetry::{RateLimiter, unauthenticated_rejected};

/// A request that carries no token of ours.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    pub(crate) record: Arc<RequestRecord>,
    pub(crate) hints: Arc<RateLimiter>,
    /// Why it carries none although the decision grants one.
    pub(crate) skipped: Option<SkipReason>,
}

// === impl Unauthenticated ===

impl Unauthenticated {
    /// Reports that the upstream answered 401 or 403. Logs it only if the access log does not, or if the credential is
    /// the app's own.
    pub(crate) fn rejected(&self, status: StatusCode) {
        let record = &*self.record;
        let Some(destination) = record.destination() else {
            return;
        };
        let rejection = UnauthenticatedRejection {
            origin: &destination.origin,
            status,
            skipped: self.skipped,
            rule: record.decision().map(|decision| &*decision.rule),
        };
        if rejection.is_own() {
            let recent = record.ingress().metrics.recent();
            recent.own_credential_rejected(&rejection);
        }
        if rejection.is_own() || !record.has_access_log() {
            unauthenticated_rejected(&self.hints, &rejection, record.trace());
        }
    }
}
