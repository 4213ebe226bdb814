//! Logs rejected tokens and tunnels without a token, with advice.

use std::path::Path;

use tracing::field;

use super::rate_limit::RateLimiter;
use super::trace::TraceContext;
use crate::destination::Origin;
use crate::diagnostics::{AuthRejection, LogEntry, NoTokenReason};
use crate::policy::{CredentialName, TokenKind};

/// Logs the rejection and advice, at most once a minute for each status, token and destination. A 403 after a 401 is
/// another fault, and so is a 403 of another function on the same host.
///
/// The token belongs to `credential`, or to an account that it impersonates.
pub fn auth_rejected(
    limiter: &RateLimiter,
    rejection: &AuthRejection<'_>,
    credential: &CredentialName,
    trace: Option<TraceContext>,
) {
    let AuthRejection {
        origin,
        status,
        key,
        ..
    } = rejection;
    if !limiter.is_due(&format!("rejected {status} {origin} {key:?}")) {
        return;
    }
    let token = match &key.kind {
        TokenKind::Access { .. } => "access",
        TokenKind::Id { .. } | TokenKind::Jwt { .. } => "ID",
    };
    let entry = if rejection.iap {
        LogEntry::RejectedByIap
    } else {
        LogEntry::TokenRejected
    };
    let trace = trace.as_ref();
    tracing::warn!(
        {
            destination = %origin,
            status = rejection.status.as_u16(),
            header = rejection.header.as_str(),
            audience = key.audience(),
            scopes = credential.scopes_text(key),
            source = rejection.source(credential).as_str(),
            credential = (credential.is_file() || key.principal.chain_clause().is_some()).then_some(&*credential.text),
            account = rejection.account,
            via = key.principal.chain_clause_with(credential.holder_or_default()),
            project = rejection.project,
            help = entry.page(),
            "logging.googleapis.com/trace" = trace.map(|trace| field::display(trace.trace_id())),
            "logging.googleapis.com/spanId" = trace.and_then(TraceContext::span_id).map(field::display),
            "logging.googleapis.com/trace_sampled" = trace.map(TraceContext::sampled),
        },
        "{origin} answered {} to an {token} token: {}",
        rejection.status.as_u16(),
        rejection.advice(credential),
    );
}

/// Logs, at most once a minute per host, that a tunnel to a destination that gets a token carries none.
pub fn tunnel_without_token(limiter: &RateLimiter, origin: &Origin, reason: NoTokenReason) {
    if !limiter.is_due(&format!("tunnel {}", origin.host)) {
        return;
    }
    tracing::warn!(
        destination = %origin,
        help = LogEntry::TunnelWithoutToken.page(),
        "the CONNECT tunnel to {origin} carries no token, since {}: {}",
        reason.why(),
        reason.advice(origin),
    );
}

/// Logs, at most once a minute per host, that the TLS handshake with an app failed, and how the app can trust the CA.
pub(crate) fn interception_failed(
    limiter: &RateLimiter,
    origin: &Origin,
    error: &dyn std::error::Error,
    ca_dir: Option<&Path>,
) {
    if !limiter.is_due(&format!("intercept {}", origin.host)) {
        return;
    }
    let Some(folder) = ca_dir.map(Path::display) else {
        tracing::warn!(
            destination = %origin,
            error = %error,
            help = LogEntry::InterceptionFailed.page(),
            "the TLS handshake with the app for {origin} failed: {error}. Make the app trust this sidecar's CA, which --ca-dir writes",
        );
        return;
    };
    tracing::warn!(
        destination = %origin,
        error = %error,
        help = LogEntry::InterceptionFailed.page(),
        "the TLS handshake with the app for {origin} failed: {error}. Make the app trust this sidecar's CA, which is new at each start: \
         SSL_CERT_FILE={folder}/bundle.pem (also REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH), \
         NODE_EXTRA_CA_CERTS={folder}/ca.pem, or for Java -Djavax.net.ssl.trustStore={folder}/truststore.p12 \
         -Djavax.net.ssl.trustStorePassword=changeit",
    );
}

#[cfg(test)]
mod tests;
