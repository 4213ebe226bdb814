//! One entry of the last errors.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::window::Window;
use crate::destination::Origin;
use crate::diagnostics::hidden::is_hidden;
use crate::error::{Problem, SourceKind, TokenFault};
use crate::policy::{TokenKey, TokenKind};

/// The longest detail or audience in characters: peers may choose both.
pub(super) const SHOWN: usize = 400;

/// An error that occurred once or several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RecentError {
    /// What happened, in a few words.
    pub(crate) title: &'static str,
    /// The error of `Proxy-Status`, if the sidecar answered itself.
    pub(crate) error: Option<&'static str>,
    /// The status of the response.
    pub(crate) status: Option<u16>,
    /// The destination or token; `None` if the request had no unambiguous destination.
    #[serde(serialize_with = "as_text")]
    pub(crate) about: Option<ErrorSubject>,
    /// The listener that received the request.
    #[serde(serialize_with = "name")]
    pub(crate) listener: Option<Arc<str>>,
    /// The detail of the latest occurrence.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) advice: Cow<'static, str>,
    /// The time of the first occurrence.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) first: SystemTime,
    /// The time of the last occurrence.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last: SystemTime,
    /// The number of occurrences.
    pub(crate) count: u64,
    /// The number of failed or affected calls.
    pub(crate) calls: u64,
    /// The same for the last 15 minutes.
    #[serde(rename = "recent_calls")]
    pub(crate) recent: Window,
}

/// What an error is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ErrorSubject {
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

// === impl RecentError ===

impl RecentError {
    pub(super) fn new(
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

    pub(super) fn of(problem: &Problem, about: Option<ErrorSubject>) -> Self {
        let (title, advice) = (problem.title(), problem.advice());
        Self::new(title, about, problem.detail(), advice.into())
    }

    /// Counts a call that failed, was rejected or was sent without its token.
    pub(super) fn of_a_call(mut self) -> Self {
        self.calls = 1;
        self.recent.add(self.last);
        self
    }

    /// Returns whether both are the same error; details may differ, for example in an address. A failing source is one
    /// error for all calls and tokens, and one that does not answer is one error whether it refuses, drops or delays.
    pub(super) fn is_same(&self, other: &Self) -> bool {
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
    pub(super) fn merged_with(self, known: Self) -> Self {
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
    pub(super) const fn server((fault, source): (TokenFault, SourceKind)) -> Option<Self> {
        let answers = match fault {
            TokenFault::NothingFound | TokenFault::TimedOut | TokenFault::Unreachable => false,
            TokenFault::Disabled
            | TokenFault::Failing
            | TokenFault::WrongServer
            | TokenFault::Limited => true,
            TokenFault::Aborted
            | TokenFault::Forbidden
            | TokenFault::InvalidScope
            | TokenFault::Malformed
            | TokenFault::NoAccount
            | TokenFault::NotDelegated
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
pub(super) struct Purpose<'a>(pub(super) &'a TokenKey);

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
            Some(account) => match key.principal.chain_clause() {
                Some(via) => write!(f, " (account {account}, {via})"),
                None => write!(f, " (account {account})"),
            },
            None => Ok(()),
        }
    }
}

/// Returns the text cut to [`SHOWN`] characters, without control and bidirectional formatting characters.
pub(super) fn shown(text: &str) -> String {
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
