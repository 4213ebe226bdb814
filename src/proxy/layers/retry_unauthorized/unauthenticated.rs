//! Rejections of requests that carried no token of ours.

use std::sync::Arc;

use http::StatusCode;

use crate::policy::{Grant, SkipReason};
use crate::proxy::request::record::RequestRecord;
use crate::telemetry::{BareRejection, Seldom, bare_rejected};

/// A request on its way that carries no token of ours.
#[derive(Debug)]
pub struct Unauthenticated {
    pub(crate) record: Arc<RequestRecord>,
    pub(crate) hints: Arc<Seldom>,
    /// Why it carries none, where one was due.
    pub(crate) skipped: Option<SkipReason>,
}

// === impl Unauthenticated ===

impl Unauthenticated {
    /// The upstream answered 401 or 403. The access log, where there is one, has a line for that.
    pub(crate) fn rejected(&self, status: StatusCode) {
        let record = &*self.record;
        let Some(destination) = record.destination() else {
            return;
        };
        let decision = record.decision();
        let upgraded = decision
            .filter(|d| matches!(d.grant, Grant::Token(_)) && !d.plaintext)
            .map(|_| destination.origin.upgraded());
        let rejection = BareRejection {
            origin: upgraded.as_ref().unwrap_or(&destination.origin),
            status,
            skipped: self.skipped,
            rule: decision.map(|decision| &*decision.rule),
            trace: record.trace(),
        };
        if rejection.is_own() {
            let recent = record.ingress().metrics.recent();
            recent.own_credential_rejected(&rejection);
        }
        if rejection.is_own() || !record.has_access_log() {
            bare_rejected(&self.hints, &rejection);
        }
    }
}
