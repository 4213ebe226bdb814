//! The state of a slot, for the status page and the readiness probe.

use std::time::{Duration, SystemTime};

use super::state::FetchState;
use crate::error::{SourceKind, TokenFault};
use crate::policy::TokenKey;
use crate::token::clock::Now;
use crate::token::fetch_error::FetchError;
use crate::token::value::{Freshness, Token};

/// A snapshot of a slot, without secrets.
#[derive(Clone, Debug)]
pub struct SlotStatus {
    /// The key of the token.
    pub(crate) key: TokenKey,
    /// What a request would find.
    pub state: SlotState,
    /// When the token expires, by the wall clock.
    pub(crate) expires_at: Option<SystemTime>,
    /// The remaining lifetime, by the clock that has less left.
    pub(crate) left: Option<Duration>,
    /// When the last successful fetch ended.
    pub(crate) fetched_at: Option<SystemTime>,
    /// A fetch is in flight.
    pub(crate) fetching: bool,
    /// An upstream rejected the current token with 401.
    pub(crate) suspect: bool,
    /// The number of failed fetches since the last success.
    pub(crate) failures: u32,
    /// The error of the last failed fetch.
    pub(crate) last_error: Option<String>,
    /// The class of the last error, which selects the advice.
    pub last_fault: Option<TokenFault>,
    /// The source that failed.
    pub(crate) last_source: Option<SourceKind>,
    /// The time until the next fetch may begin after a failure.
    pub(crate) retry_in: Option<Duration>,
}

/// What a request would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No token yet.
    Empty,
    /// A token that is sent at once.
    Fresh,
    /// A token that is stale or expiring: it may be sent and should be replaced. The page calls both `stale`.
    NotFresh,
    /// A token that must not be sent.
    Expired,
}

// === impl SlotStatus ===

impl SlotStatus {
    pub(super) fn new(key: &TokenKey, token: Option<&Token>, state: &FetchState, now: Now) -> Self {
        let backoff = state.backoff();
        Self {
            key: key.clone(),
            state: match token.map(|token| token.freshness(now)) {
                None => SlotState::Empty,
                Some(Freshness::Fresh) => SlotState::Fresh,
                Some(Freshness::Stale | Freshness::Expiring) => SlotState::NotFresh,
                Some(Freshness::Expired) => SlotState::Expired,
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
    /// Returns the state as one word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fresh => "fresh",
            Self::NotFresh => "stale",
            Self::Expired => "expired",
        }
    }
}
