//! The last errors for the status page, each with advice.
//!
//! Equal errors are counted as one, so that one failing host cannot displace the others. Of a request, only the origin
//! is kept. Errors are rare, so a mutex is sufficient.

mod error;
mod window;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::StatusCode;

pub(crate) use error::{ErrorSubject, RecentError};
use error::{Purpose, shown};

use super::rejection::AuthRejection;
use super::tunnel::NoTokenReason;
use super::unauthenticated::{self, UnauthenticatedRejection};
use crate::destination::Origin;
use crate::error::{ErrorKind, Problem};
use crate::lock::lock;
use crate::policy::{CredentialName, TokenKey};

/// The number of errors that are kept.
const KEPT: usize = 50;

/// The last 50 kinds of error.
#[derive(Debug, Default)]
pub(crate) struct RecentErrors {
    /// The latest first.
    errors: Mutex<VecDeque<RecentError>>,
}

// === impl RecentErrors ===

impl RecentErrors {
    /// Records that the sidecar answered a request with its own error. `origin` is the destination, if it is known.
    pub(crate) fn failed(&self, problem: &Problem, origin: Option<&Origin>, listener: &Arc<str>) {
        let row = problem.kind().row();
        let server = problem.fault().and_then(ErrorSubject::server);
        let listener = Some(listener.clone()).filter(|_| server.is_none());
        let about = server.or_else(|| origin.cloned().map(ErrorSubject::Destination));
        let error = RecentError {
            error: Some(row.proxy_status),
            status: Some(row.status.as_u16()),
            listener,
            ..RecentError::of(problem, about)
        };
        // A client responds to the challenge with its credentials.
        self.add(match problem.kind() {
            ErrorKind::ProxyAuthRequired => error,
            _ => error.of_a_call(),
        });
    }

    /// Records that a fetch returned no token. Possibly no request waited for it.
    pub(crate) fn not_fetched(&self, key: &TokenKey, problem: &Problem) {
        let server = problem.fault().and_then(ErrorSubject::server);
        let about = server.unwrap_or_else(|| ErrorSubject::Token(key.clone()));
        self.add(RecentError::of(problem, Some(about)));
    }

    /// Records that an upstream answered 5xx.
    pub(crate) fn upstream_error(&self, origin: &Origin, status: StatusCode, listener: &Arc<str>) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let error = RecentError {
            status: Some(status.as_u16()),
            listener: Some(listener.clone()),
            ..RecentError::new(
                "The upstream answered with an error",
                about,
                &format!("answered {status}, which was passed to the app"),
                FAILED_ITSELF.into(),
            )
        };
        self.add(error.of_a_call());
    }

    /// Records that an upstream rejected a token of this base credential, or of an account that it impersonates.
    pub(crate) fn rejected(&self, rejection: &AuthRejection<'_>, credential: &CredentialName) {
        let status = rejection.status.as_u16();
        let title = match status {
            403 => "The upstream forbids the call to this account",
            300..400 => "The upstream requires a sign-in",
            _ => "The upstream rejects the token",
        };
        let for_whom = shown(&Purpose(rejection.key).to_string());
        let unnamed = match credential.is_file() {
            true => &credential.text,
            false => "an account with an unknown name",
        };
        let via = rejection
            .key
            .principal
            .chain_clause_with(credential.holder_or_default());
        let via = via.map_or_else(String::new, |via| format!(", {via}"));
        let detail = format!(
            "answered {status} to an {for_whom} in {}, of {}{via}",
            rejection.header,
            rejection.account.unwrap_or(unnamed)
        );
        let about = Some(ErrorSubject::Refused(
            rejection.origin.clone(),
            rejection.key.clone(),
        ));
        let error = RecentError {
            status: Some(status),
            ..RecentError::new(
                title,
                about,
                &detail,
                sentence(&rejection.advice(credential)).into(),
            )
        };
        self.add(error.of_a_call());
    }

    /// Records that an upstream rejected the app's own credential, which was not replaced.
    pub(crate) fn own_credential_rejected(&self, rejection: &UnauthenticatedRejection<'_>) {
        let status = rejection.status.as_u16();
        let about = Some(ErrorSubject::Destination(rejection.origin.clone()));
        let error = RecentError {
            status: Some(status),
            ..RecentError::new(
                "The upstream rejects the app's own credential",
                about,
                &format!("answered {status} to {}", rejection.what()),
                sentence(unauthenticated::ADVICE).into(),
            )
        };
        self.add(error.of_a_call());
    }

    /// Records a blind tunnel to a destination that gets a token.
    pub(crate) fn tunnel_without_token(&self, origin: &Origin, reason: NoTokenReason) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let detail = format!(
            "the CONNECT tunnel carries no token, because {}",
            reason.why()
        );
        let error = RecentError::new(
            "A call was sent without its token",
            about,
            &detail,
            sentence(&reason.advice(origin)).into(),
        );
        self.add(error.of_a_call());
    }

    /// Records that the TLS handshake with an app failed.
    pub(crate) fn interception_failed(&self, origin: &Origin, error: &dyn std::error::Error) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let error = RecentError::new(
            "The app does not trust this sidecar's CA",
            about,
            &format!("the TLS handshake with the app failed: {error}"),
            UNTRUSTED.into(),
        );
        self.add(error.of_a_call());
    }

    /// Returns the errors, the latest first.
    pub(crate) fn errors(&self) -> Vec<RecentError> {
        self.lock().iter().cloned().collect()
    }

    fn add(&self, error: RecentError) {
        let mut errors = self.lock();
        let known = errors.iter().position(|known| known.is_same(&error));
        let error = match known.and_then(|index| errors.remove(index)) {
            Some(known) => error.merged_with(known),
            None => error,
        };
        errors.truncate(KEPT - 1);
        errors.push_front(error);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<RecentError>> {
        lock(&self.errors)
    }
}

/// The advice if an upstream answers 5xx.
const FAILED_ITSELF: &str = "Check the upstream's log at that time. If it has no entry for the call, the load balancer in front answered: on \
                             Cloud Run, because no instance was available.";

/// The advice if an app does not trust the CA.
const UNTRUSTED: &str = "Let the app trust the CA that --ca-dir writes, anew at each start of the sidecar: SSL_CERT_FILE=bundle.pem, \
                         NODE_EXTRA_CA_CERTS=ca.pem, or truststore.p12 for Java. An app that pins certificates needs a --route.";

/// Returns a clause of a log line as a sentence.
fn sentence(clause: &str) -> String {
    let mut characters = clause.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect()
}

#[cfg(test)]
mod tests;
