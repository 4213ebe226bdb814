//! Rejections of requests that carried no token of ours.

use std::sync::Arc;

use http::StatusCode;

use crate::policy::{Grant, SkipReason};
use crate::proxy::request::record::Exchange;
use crate::telemetry::{BareRejection, Seldom, bare_rejected};

/// A request on its way that carries no token of ours.
#[derive(Debug)]
pub struct Bare {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) hints: Arc<Seldom>,
    /// Why it carries none, where one was due.
    pub(crate) skipped: Option<SkipReason>,
}

// === impl Bare ===

impl Bare {
    /// The upstream answered 401 or 403. The access log, where there is one, has a line for that.
    pub(crate) fn rejected(&self, status: StatusCode) {
        let exchange = &*self.exchange;
        let Some(destination) = exchange.destination() else {
            return;
        };
        let decision = exchange.decision();
        let upgraded = decision
            .filter(|d| matches!(d.grant, Grant::Token(_)) && !d.plaintext)
            .map(|_| destination.origin.upgraded());
        let rejection = BareRejection {
            origin: upgraded.as_ref().unwrap_or(&destination.origin),
            status,
            skipped: self.skipped,
            rule: decision.map(|decision| &*decision.rule),
            trace: exchange.trace(),
        };
        if rejection.is_own() {
            let recent = exchange.entrance().metrics.recent();
            recent.own_credential_rejected(&rejection);
        }
        if rejection.is_own() || !exchange.has_access_log() {
            bare_rejected(&self.hints, &rejection);
        }
    }
}
