//! What a slot knows beside its token: the fetch under way, the last failure, and when the next fetch may begin.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::flight::{Departure, Flight};
use crate::error::Error;
use crate::policy::{TokenKey, TokenKind};
use crate::telemetry::Fetch;
use crate::token::clock::{Deadline, Now};
use crate::token::failure::{Backoff, FetchError};
use crate::token::value::{Age, Token};

/// Between fetches that bring no fresh token.
const PAUSE: Duration = Duration::from_secs(10);
/// The same, where time is short.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// Time is short with less than this left.
const SHORT: Duration = Duration::from_secs(60);
/// Between fetches for no other reason than an upstream's 401.
const RENEWAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct State {
    flights: u64,
    flight: Option<Flight>,
    backoff: Backoff,
    /// No refresh before, because the last one brought nothing fresh; void without a usable token.
    pause: Option<Deadline>,
    /// No renewal before.
    renewal: Option<Deadline>,
    suspect: bool,
    fetched_at: Option<SystemTime>,
}

/// What came of a fetch, for metrics and logs.
#[derive(Debug)]
pub(super) enum Landed {
    New { recovered: bool },
    Unchanged,
    Failed(FetchError),
}

// === impl State ===

impl State {
    /// The fetch to wait for, where one is under way or may begin. `usable`: the current token may be sent. A fetch under
    /// way for longer than `limit` was frozen, and is no longer waited for.
    pub(super) fn depart(&mut self, now: Now, usable: bool, limit: Duration) -> Option<Departure> {
        if let Some(flight) = self.under_way(now, limit) {
            return Some(flight.join());
        }
        let paused = usable && self.pause.is_some_and(|pause| !pause.left(now).is_zero());
        if paused || self.backoff.left(now).is_some() {
            return None;
        }
        Some(self.start(now))
    }

    /// As [`depart`](Self::depart), because an upstream rejected the current token.
    pub(super) fn renew(&mut self, now: Now, limit: Duration) -> Option<Departure> {
        self.suspect = true;
        if let Some(flight) = self.under_way(now, limit) {
            return Some(flight.join());
        }
        let renewed = self.renewal.is_some_and(|next| !next.left(now).is_zero());
        if renewed || self.backoff.left(now).is_some() {
            return None;
        }
        self.renewal = Some(now.after(RENEWAL));
        Some(self.start(now))
    }

    /// Takes a fetched token; says which token to put in place, if any.
    pub(super) fn landed(
        &mut self,
        id: u64,
        token: Token,
        known: Option<Arc<Token>>,
        now: Now,
    ) -> (Option<Arc<Token>>, Landed) {
        let awaited = self.clear(id);
        let recovered = self.backoff.succeeded();
        self.fetched_at = Some(now.wall);
        let same = known.as_ref().is_some_and(|known| known.same_value(&token));
        let first = known.is_none();
        let landed = if same {
            Landed::Unchanged
        } else {
            self.suspect = false;
            Landed::New { recovered }
        };
        // The same token never expires earlier than we knew, and what was frozen on its way replaces nothing newer.
        let (token, keep) = match known {
            Some(known) if (same || !awaited) && known.left(now) >= token.left(now) => {
                (known, None)
            }
            _ => {
                let token = Arc::new(token);
                (Arc::clone(&token), Some(token))
            }
        };
        let rests = match token.age(now) {
            Age::Fresh => false,
            // The first may be one that the server has had for long: it is refreshed as any other stale one.
            Age::Stale => !first,
            Age::Expiring | Age::Dead => true,
        };
        self.pause = rests.then(|| {
            let pause = if token.left(now) < SHORT {
                SHORT_PAUSE
            } else {
                PAUSE
            };
            now.after(pause.min(token.usable(now)))
        });
        (keep, landed)
    }

    /// Takes a failure. One that was `frozen` says nothing about the server, so it holds nobody off; nor does one whose
    /// place another fetch has taken.
    pub(super) fn failed(&mut self, id: u64, error: FetchError, frozen: bool, now: Now) -> Landed {
        if self.clear(id) {
            self.backoff.failed(error.clone(), frozen, now);
        }
        Landed::Failed(error)
    }

    /// Why there is no token now.
    pub(super) fn refusal(&self, now: Now) -> Error {
        let wait = self.backoff.left(now).unwrap_or_default();
        match self.backoff.last_error() {
            Some(error) => error.to_error(wait),
            None => FetchError::aborted().to_error(wait),
        }
    }

    pub(super) fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.flight.is_some()
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn fetched_at(&self) -> Option<SystemTime> {
        self.fetched_at
    }

    fn under_way(&self, now: Now, limit: Duration) -> Option<&Flight> {
        let flight = self.flight.as_ref();
        flight.filter(|flight| now.since(flight.started) <= limit)
    }

    fn start(&mut self, now: Now) -> Departure {
        self.flights += 1;
        let (flight, departure) = Flight::new(self.flights, now);
        self.flight = Some(flight);
        departure
    }

    /// The flight is over; says whether it was the one that all wait for.
    fn clear(&mut self, id: u64) -> bool {
        self.flight.take_if(|flight| flight.id == id).is_some()
    }
}

// === impl Landed ===

impl Landed {
    pub(super) fn outcome(&self) -> Fetch {
        match self {
            Self::New { .. } => Fetch::Ok,
            Self::Unchanged => Fetch::Unchanged,
            Self::Failed(_) => Fetch::Error,
        }
    }

    pub(super) fn log(&self, key: &TokenKey) {
        let credential = key.credential().as_str();
        let account = key.principal.account().unwrap_or("default");
        let purpose = match &key.kind {
            TokenKind::Access { scopes } => scopes.join(" "),
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => audience.to_string(),
        };
        match self {
            Self::Failed(error) => {
                let advice = error.fault().advice_of(error.source());
                tracing::warn!(credential, purpose, account, advice, "{}", error.detail());
            }
            Self::New { recovered: true } => {
                tracing::info!(credential, purpose, account, "token: there is one again");
            }
            Self::New { recovered: false } => {
                tracing::debug!(credential, purpose, account, "token: a new one");
            }
            Self::Unchanged => {
                tracing::debug!(credential, purpose, account, "token: the same one again");
            }
        }
    }
}
