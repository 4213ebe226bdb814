//! How a slot stands, for the status page and the readiness probe.

use std::time::{Duration, SystemTime};

use super::state::State;
use crate::error::{SourceKind, TokenFault};
use crate::policy::TokenKey;
use crate::token::clock::Now;
use crate::token::failure::FetchError;
use crate::token::value::{Age, Token};

/// A slot at one moment; no secrets.
#[derive(Clone, Debug)]
pub struct SlotStatus {
    /// What it is for.
    pub key: TokenKey,
    /// What a request would find.
    pub state: SlotState,
    /// When the token expires, as the wall clock tells it.
    pub expires_at: Option<SystemTime>,
    /// How long it may still be used, by the clock that has less left.
    pub left: Option<Duration>,
    /// When the last fetch that brought a token ended.
    pub fetched_at: Option<SystemTime>,
    /// A fetch is under way.
    pub fetching: bool,
    /// An upstream rejected the current token with 401.
    pub suspect: bool,
    /// Failed fetches since the last that brought a token.
    pub failures: u32,
    /// Why the last of them failed.
    pub last_error: Option<String>,
    /// The same, as far as what to do depends on it.
    pub last_fault: Option<TokenFault>,
    /// What it was to come from.
    pub last_source: Option<SourceKind>,
    /// How long no new fetch begins after a failure.
    pub retry_in: Option<Duration>,
}

/// What a request would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No token yet.
    Empty,
    /// A token that is sent at once.
    Fresh,
    /// A token that may be sent and shall be replaced.
    Stale,
    /// A token that is not sent any more.
    Expired,
}

// === impl SlotStatus ===

impl SlotStatus {
    pub(super) fn new(key: &TokenKey, token: Option<&Token>, state: &State, now: Now) -> Self {
        let backoff = state.backoff();
        Self {
            key: key.clone(),
            state: match token.map(|token| token.age(now)) {
                None => SlotState::Empty,
                Some(Age::Fresh) => SlotState::Fresh,
                Some(Age::Stale | Age::Expiring) => SlotState::Stale,
                Some(Age::Dead) => SlotState::Expired,
            },
            expires_at: token.map(Token::expires_at),
            left: token.map(|token| token.left(now)),
            fetched_at: state.fetched_at(),
            fetching: state.is_fetching(),
            suspect: state.is_suspect(),
            failures: backoff.failures(),
            last_error: backoff.last_error().map(|error| error.detail().to_owned()),
            last_fault: backoff.last_error().map(FetchError::fault),
            last_source: backoff.last_error().map(FetchError::source),
            retry_in: backoff.left(now),
        }
    }
}

// === impl SlotState ===

impl SlotState {
    /// One word, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}
