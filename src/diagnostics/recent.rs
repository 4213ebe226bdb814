//! The last errors for the status page, each with advice.
//!
//! Equal errors are counted as one, so that one failing host cannot displace the others. Of a request, only the origin is kept.
//! Errors are rare, so a mutex is sufficient.

mod window;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::StatusCode;
use serde::{Serialize, Serializer};

pub use window::Window;

use super::hidden::is_hidden;
use super::rejection::AuthRejection;
use super::tunnel::NoTokenReason;
use super::unauthenticated::{self, UnauthenticatedRejection};
use crate::destination::Origin;
use crate::error::{ErrorKind, Problem, SourceKind, TokenFault};
use crate::lock::lock;
use crate::policy::{CredentialName, TokenKey, TokenKind};

/// The number of errors that are kept.
const KEPT: usize = 50;

/// The longest detail or audience in characters: peers may choose both.
const SHOWN: usize = 400;

/// The last 50 kinds of error.
#[derive(Debug, Default)]
pub struct RecentErrors {
    /// The latest first.
    errors: Mutex<VecDeque<RecentError>>,
}

/// An error that occurred once or several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecentError {
    /// What happened, in a few words.
    pub title: &'static str,
    /// The error of `Proxy-Status`, if the sidecar answered itself.
    pub error: Option<&'static str>,
    /// The status of the response.
    pub status: Option<u16>,
    /// The destination or token; `None` if the request had no unambiguous destination.
    #[serde(serialize_with = "as_text")]
    pub about: Option<ErrorSubject>,
    /// The listener that received the request.
    #[serde(serialize_with = "name")]
    pub listener: Option<Arc<str>>,
    /// The detail of the latest occurrence.
    pub detail: String,
    /// What to do.
    pub advice: Cow<'static, str>,
    /// The time of the first occurrence.
    #[serde(serialize_with = "rfc3339")]
    pub first: SystemTime,
    /// The time of the last occurrence.
    #[serde(serialize_with = "rfc3339")]
    pub last: SystemTime,
    /// The number of occurrences.
    pub count: u64,
    /// The number of failed or affected calls.
    pub calls: u64,
    /// The same for the last 15 minutes.
    #[serde(rename = "recent_calls")]
    pub recent: Window,
}

/// What an error is about.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorSubject {
    /// Calls to a destination.
    Destination(Origin),
    /// Calls to a destination that rejects this token: functions of one host have tokens of their own.
    Refused(Origin, TokenKey),
    /// A token source, whose failure affects all its tokens.
    TokenSource {
        /// The metadata server, or the endpoint of a credential.
        source: SourceKind,
        /// It answers, but with no token.
        answers: bool,
    },
    /// A token that was not issued.
    Token(TokenKey),
}

// === impl RecentErrors ===

impl RecentErrors {
    /// Remembers that the sidecar answered a request with an error of its own. `origin` is its destination, if that is known.
    pub fn failed(&self, problem: &Problem, origin: Option<&Origin>, listener: &Arc<str>) {
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
        // A client answers the challenge with its credentials.
        self.add(match problem.kind() {
            ErrorKind::ProxyAuthRequired => error,
            _ => error.of_a_call(),
        });
    }

    /// Remembers that a fetch returned no token. Perhaps no request waited for it.
    pub fn not_fetched(&self, key: &TokenKey, problem: &Problem) {
        let server = problem.fault().and_then(ErrorSubject::server);
        let about = server.unwrap_or_else(|| ErrorSubject::Token(key.clone()));
        self.add(RecentError::of(problem, Some(about)));
    }

    /// Remembers that an upstream answered 5xx.
    pub fn upstream_error(&self, origin: &Origin, status: StatusCode, listener: &Arc<str>) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let error = RecentError {
            status: Some(status.as_u16()),
            listener: Some(listener.clone()),
            ..RecentError::new(
                "The upstream answered with an error of its own",
                about,
                &format!("answered {status}, and that is what the app got"),
                FAILED_ITSELF.into(),
            )
        };
        self.add(error.of_a_call());
    }

    /// Remembers that an upstream rejected our token.
    pub fn rejected(&self, rejection: &AuthRejection<'_>) {
        self.rejected_of(rejection, &CredentialName::default());
    }

    /// The same for a token that this base credential was issued, or that it had issued to an account.
    pub fn rejected_of(&self, rejection: &AuthRejection<'_>, credential: &CredentialName) {
        let status = rejection.status.as_u16();
        let title = match status {
            403 => "The upstream forbids the call to this account",
            300..400 => "The upstream asks for a sign-in",
            _ => "The upstream does not take our token",
        };
        let for_whom = shown(&Purpose(rejection.key).to_string());
        let unnamed = match credential.is_file() {
            true => &credential.text,
            false => "an account whose name is not known",
        };
        let via = rejection
            .key
            .principal
            .via_of(credential.holder_or_default());
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

    /// Remembers that an upstream rejected a credential of the app, which was kept.
    pub fn own_credential_rejected(&self, rejection: &UnauthenticatedRejection<'_>) {
        let status = rejection.status.as_u16();
        let about = Some(ErrorSubject::Destination(rejection.origin.clone()));
        let error = RecentError {
            status: Some(status),
            ..RecentError::new(
                "The upstream does not take the app's own credential",
                about,
                &format!("answered {status} to {}", rejection.what()),
                sentence(unauthenticated::ADVICE).into(),
            )
        };
        self.add(error.of_a_call());
    }

    /// Remembers a blind tunnel to a destination that gets a token.
    pub fn tunnel_without_token(&self, origin: &Origin, reason: NoTokenReason) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let detail = format!(
            "the CONNECT tunnel carries no token, since {}",
            reason.why()
        );
        let error = RecentError::new(
            "A call went out without its token",
            about,
            &detail,
            sentence(&reason.advice(origin)).into(),
        );
        self.add(error.of_a_call());
    }

    /// Remembers that the TLS handshake with an app failed.
    pub fn interception_failed(&self, origin: &Origin, error: &dyn std::error::Error) {
        let about = Some(ErrorSubject::Destination(origin.clone()));
        let error = RecentError::new(
            "The app does not trust this sidecar's CA",
            about,
            &format!("no TLS with the app: {error}"),
            UNTRUSTED.into(),
        );
        self.add(error.of_a_call());
    }

    /// Returns the errors, the latest first.
    pub fn errors(&self) -> Vec<RecentError> {
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

// === impl RecentError ===

impl RecentError {
    fn new(
        title: &'static str,
        about: Option<ErrorSubject>,
        detail: &str,
        advice: Cow<'static, str>,
    ) -> Self {
        let now = SystemTime::now();
        Self {
            title,
            error: None,
            status: None,
            about,
            listener: None,
            detail: shown(detail),
            advice,
            first: now,
            last: now,
            count: 1,
            calls: 0,
            recent: Window::default(),
        }
    }

    fn of(problem: &Problem, about: Option<ErrorSubject>) -> Self {
        let (title, advice) = (problem.title(), problem.advice());
        Self::new(title, about, problem.detail(), advice.into())
    }

    /// Counts a call that failed, was rejected or was sent without its token.
    fn of_a_call(mut self) -> Self {
        self.calls = 1;
        self.recent.add(self.last);
        self
    }

    /// Whether both are the same error; details may differ, for example in an address. A failing source is one error for all
    /// calls and tokens, and one that does not answer is one error whether it refuses, drops or delays.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.about, &other.about) {
            (
                Some(ErrorSubject::TokenSource { source, answers }),
                Some(ErrorSubject::TokenSource {
                    source: other_source,
                    answers: other_answers,
                }),
            ) => {
                source == other_source
                    && answers == other_answers
                    && (!answers || self.title == other.title)
            }
            _ => {
                self.title == other.title
                    && self.status == other.status
                    && self.listener == other.listener
                    && self.about == other.about
            }
        }
    }

    /// Merges an earlier occurrence into this one.
    fn merged_with(self, known: Self) -> Self {
        let mut recent = known.recent;
        if self.calls > 0 {
            recent.add(self.last);
        }
        Self {
            // A fetch has no response.
            error: self.error.or(known.error),
            status: self.status.or(known.status),
            first: known.first,
            count: known.count.saturating_add(self.count),
            calls: known.calls.saturating_add(self.calls),
            recent,
            ..self
        }
    }
}

// === impl ErrorSubject ===

impl ErrorSubject {
    /// Returns the source, if the fault is that of the source and not of one token.
    const fn server((fault, source): (TokenFault, SourceKind)) -> Option<Self> {
        let answers = match fault {
            TokenFault::NothingFound | TokenFault::TimedOut | TokenFault::Unreachable => false,
            TokenFault::Disabled
            | TokenFault::Failing
            | TokenFault::WrongServer
            | TokenFault::Limited => true,
            TokenFault::Aborted
            | TokenFault::Forbidden
            | TokenFault::Malformed
            | TokenFault::NoAccount
            | TokenFault::NotImpersonated
            | TokenFault::NoSubjectToken
            | TokenFault::ProxyRefused
            | TokenFault::Refused
            | TokenFault::Unsupported => return None,
        };
        Some(Self::TokenSource { source, answers })
    }
}

/// Formats what a token is for: `ID token for https://a.example`.
struct Purpose<'a>(&'a TokenKey);

impl std::fmt::Display for Purpose<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(key) = self;
        match &key.kind {
            TokenKind::Access { scopes } if scopes.is_empty() => f.write_str("access token")?,
            TokenKind::Access { scopes } => write!(f, "access token for {}", scopes.join(" "))?,
            TokenKind::Id { audience } => write!(f, "ID token for {audience}")?,
            TokenKind::Jwt { audience } => write!(f, "signed JWT for {audience}")?,
        }
        match key.principal.account() {
            Some(account) => match key.principal.via() {
                Some(via) => write!(f, " (account {account}, {via})"),
                None => write!(f, " (account {account})"),
            },
            None => Ok(()),
        }
    }
}

/// Returns a clause of a log line as a sentence.
fn sentence(clause: &str) -> String {
    let mut characters = clause.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).chain(['.']).collect()
}

/// Returns the text cut to [`SHOWN`] characters, without control and bidirectional formatting characters.
fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(SHOWN)
        .map(|c| if is_hidden(c) { ' ' } else { c })
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn as_text<S: Serializer>(about: &Option<ErrorSubject>, serializer: S) -> Result<S::Ok, S::Error> {
    match about {
        Some(ErrorSubject::Destination(origin) | ErrorSubject::Refused(origin, _)) => {
            serializer.collect_str(origin)
        }
        Some(ErrorSubject::TokenSource { source, .. }) => serializer.serialize_str(source.server()),
        Some(ErrorSubject::Token(key)) => {
            serializer.serialize_str(&shown(&Purpose(key).to_string()))
        }
        None => serializer.serialize_none(),
    }
}

fn name<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    // A clock before 1970 cannot be written.
    let time = *time.max(&SystemTime::UNIX_EPOCH);
    serializer.collect_str(&humantime::format_rfc3339_millis(time))
}

#[cfg(test)]
mod tests;
