//! What a finished request adds to metrics, status page and access log.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::{Attached, RequestRecord};
use crate::config::AccessLog;
use crate::diagnostics::RequestOutcome;
use crate::error::{ErrorKind, Problem};
use crate::policy::{Credential, CredentialGrant, Decision, TokenKey};
use crate::telemetry::{AccessRecord, Carried, Code, access_log};

// === impl RequestRecord ===

impl RequestRecord {
    /// Reports the request, which ends now.
    pub(super) fn report(&self) {
        let ended = Instant::now();
        let took = ended.saturating_duration_since(self.started);
        let status = self.delivered_status();
        let code = status.map_or(Code::CANCELLED, Code::from);
        let credential = self.credential();
        let outcome = self.outcome(credential, code);
        let metrics = &self.ingress.metrics;
        metrics.request_finished(credential.unwrap_or(Credential::None), code, took);
        metrics.record_history(ended, outcome, self.latency(took));
        if let (RequestOutcome::UpstreamError, Some(status), Some(destination)) =
            (outcome, status, self.destination())
        {
            let recent = metrics.recent();
            recent.upstream_error(&destination.origin, status, &self.ingress.name);
        }
        if let Some(problem) = self.problem() {
            let origin = self.destination().map(|destination| &destination.origin);
            let recent = metrics.recent();
            recent.failed(problem, origin, &self.ingress.name);
        }
        if self.access_log != AccessLog::Off && self.is_logged() {
            self.log(credential, code, took);
        }
    }

    fn log(&self, credential: Option<Credential>, code: Code, latency: Duration) {
        let decision = self.decision();
        let attached = match self.attached.get() {
            Some(Attached::Token { header, provider }) => {
                token_key(decision).map(|key| (header, provider, key))
            }
            Some(Attached::Nothing) | None => None,
        };
        let email =
            attached.and_then(|(_, provider, key)| provider.facts().email_if_known(&key.principal));
        let scopes = attached
            .and_then(|(_, provider, key)| provider.policy().credential_name().scopes_text(key));
        access_log(
            self.access_log,
            &AccessRecord {
                method: Some(&self.method),
                destination: self.destination(),
                code,
                request_bytes: self.transfer.bytes_received(),
                response_bytes: self.transfer.bytes_sent(),
                latency,
                protocol: self.version,
                user_agent: self.user_agent.as_ref(),
                listener: &self.ingress.name,
                credential,
                rule: self
                    .denied_by
                    .get()
                    .map(|rule| &**rule)
                    .or_else(|| decision.map(|decision| &*decision.rule)),
                token: attached.map(|(header, _, key)| Carried {
                    key,
                    account: email.as_deref().or_else(|| key.principal.account()),
                    scopes: scopes.as_deref(),
                    header,
                }),
                problem: self.problem(),
                trace: self.trace,
            },
        );
    }

    /// The credential that the request carries; `None` before the decision.
    fn credential(&self) -> Option<Credential> {
        let decided = self.decision()?.credential();
        Some(match self.attached.get() {
            Some(Attached::Nothing) => Credential::None,
            Some(Attached::Token { .. }) | None => decided,
        })
    }

    fn status(&self) -> Option<StatusCode> {
        self.response.get()?.status
    }

    /// The status, if the app received the whole response.
    fn delivered_status(&self) -> Option<StatusCode> {
        self.status().filter(|_| self.transfer.is_delivered())
    }

    fn problem(&self) -> Option<&Problem> {
        let of_response = self
            .response
            .get()
            .and_then(|response| response.problem.as_ref());
        of_response.or_else(|| self.interruption.get())
    }

    fn outcome(&self, credential: Option<Credential>, code: Code) -> RequestOutcome {
        let carried_token = matches!(credential, Some(Credential::Access | Credential::Id));
        match (self.problem().map(Problem::kind), code.status()) {
            // The challenge that a client expects before it sends its credentials.
            (Some(ErrorKind::ProxyAuthRequired), _) => RequestOutcome::Answered,
            (Some(_), _) => RequestOutcome::Failed,
            (None, _) if code == Code::CANCELLED => RequestOutcome::Cancelled,
            (None, Some(401 | 403)) if carried_token => RequestOutcome::Rejected,
            (None, Some(500..)) => RequestOutcome::UpstreamError,
            (None, _) => RequestOutcome::Answered,
        }
    }

    fn is_logged(&self) -> bool {
        self.problem()
            .is_none_or(|problem| self.ingress.logs_rejection(self.access_log, problem.kind()))
    }

    /// How long the response took; `None` for a tunnel, which lasts as long as its ends keep it open.
    fn latency(&self, took: Duration) -> Option<Duration> {
        let tunnel = self.method == Method::CONNECT
            || self.status() == Some(StatusCode::SWITCHING_PROTOCOLS);
        (!tunnel).then_some(took)
    }
}

/// The key of the token that this decision grants.
fn token_key(decision: Option<&Decision>) -> Option<&TokenKey> {
    match &decision?.grant {
        CredentialGrant::Token(key) => Some(key),
        CredentialGrant::None(_) | CredentialGrant::Deny(_) => None,
    }
}
