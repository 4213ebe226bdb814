//! The state of a slot, without its token: the fetch in flight, the last failure, and when the next fetch may begin.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::Level;

use super::fetch_task::{FetchPlan, InFlightFetch};
use crate::error::{Error, SourceKind};
use crate::policy::{TokenKey, TokenKind};
use crate::telemetry::Fetch;
use crate::token::backoff::Backoff;
use crate::token::clock::{Deadline, Now};
use crate::token::fetch_error::FetchError;
use crate::token::value::{Freshness, Token};

/// The pause after a fetch that returned no fresh token. A source with a cache, such as the metadata server, may
/// return the same token again.
const PAUSE: Duration = Duration::from_secs(10);
/// The pause if the token has less than [`SHORT`] left.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// Below this remaining time, [`SHORT_PAUSE`] applies.
const SHORT: Duration = Duration::from_secs(60);
/// The shortest time between two fetches that an upstream's 401 causes.
const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(60);

/// The fetch in flight, the last failure, and the pauses of one slot.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    last_id: u64,
    in_flight: Option<InFlightFetch>,
    backoff: Backoff,
    /// The earliest time of the next fetch after one that returned no fresh token. Ignored without a usable token.
    next_refresh: Option<Deadline>,
    /// The earliest time of the next fetch because of a 401.
    next_replacement: Option<Deadline>,
    /// An upstream rejected the current token with 401.
    suspect: bool,
    fetched_at: Option<SystemTime>,
}

/// The result of a fetch, for metrics and logs.
#[derive(Debug)]
pub(super) enum FetchResult {
    New { recovered: bool },
    Unchanged,
    Failed(FetchError),
}

// === impl FetchState ===

impl FetchState {
    /// Returns the plan to join the fetch in flight, or to start one. Returns `None` during a pause or a backoff.
    ///
    /// `usable`: the current token may be sent. A fetch that runs for longer than `limit` was suspended with the
    /// instance. A new one replaces it.
    pub(super) fn plan_fetch(
        &mut self,
        now: Now,
        usable: bool,
        limit: Duration,
    ) -> Option<FetchPlan> {
        if let Some(fetch) = self.current_fetch(now, limit) {
            return Some(fetch.join());
        }
        let too_early = usable
            && self
                .next_refresh
                .is_some_and(|next| !next.left(now).is_zero());
        if too_early || self.backoff.left(now).is_some() {
            return None;
        }
        Some(self.start(now))
    }

    /// Like [`plan_fetch`](Self::plan_fetch), after an upstream has rejected the current token. Starts at most one
    /// fetch in [`REPLACEMENT_INTERVAL`].
    pub(super) fn plan_replacement(&mut self, now: Now, limit: Duration) -> Option<FetchPlan> {
        self.suspect = true;
        if let Some(fetch) = self.current_fetch(now, limit) {
            return Some(fetch.join());
        }
        let too_soon = self
            .next_replacement
            .is_some_and(|next| !next.left(now).is_zero());
        if too_soon || self.backoff.left(now).is_some() {
            return None;
        }
        self.next_replacement = Some(now.after(REPLACEMENT_INTERVAL));
        Some(self.start(now))
    }

    /// Records a fetched token. Returns the token to store, if any.
    pub(super) fn succeeded(
        &mut self,
        id: u64,
        token: Token,
        known: Option<Arc<Token>>,
        now: Now,
    ) -> (Option<Arc<Token>>, FetchResult) {
        let is_current = self.clear(id);
        let recovered = self.backoff.succeeded();
        self.fetched_at = Some(now.wall);
        let same = known.as_ref().is_some_and(|known| known.same_value(&token));
        let first = known.is_none();
        let result = if same {
            FetchResult::Unchanged
        } else {
            self.suspect = false;
            FetchResult::New { recovered }
        };
        // A response with the same token does not shorten its life, and the result of a suspended fetch does not
        // replace a token that lives longer.
        let (token, to_store) = match known {
            Some(known) if (same || !is_current) && known.left(now) >= token.left(now) => {
                (known, None)
            }
            _ => {
                let token = Arc::new(token);
                (Arc::clone(&token), Some(token))
            }
        };
        let pauses = match token.freshness(now) {
            Freshness::Fresh => false,
            // The server may have cached the first token for long. It is refreshed like any other stale token.
            Freshness::Stale => !first,
            Freshness::Expiring | Freshness::Expired => true,
        };
        self.next_refresh = pauses.then(|| {
            let pause = if token.left(now) < SHORT {
                SHORT_PAUSE
            } else {
                PAUSE
            };
            now.after(pause.min(token.time_to_expired(now)))
        });
        (to_store, result)
    }

    /// Records a failure. It causes no backoff if the instance was suspended during the fetch (`suspended`), or if
    /// another fetch has replaced this one: the failure says nothing about the server.
    pub(super) fn failed(
        &mut self,
        id: u64,
        error: FetchError,
        suspended: bool,
        now: Now,
    ) -> FetchResult {
        if self.clear(id) {
            self.backoff.failed(error.clone(), suspended, now);
        }
        FetchResult::Failed(error)
    }

    /// Returns the reason why no token is available.
    pub(super) fn error(&self, now: Now) -> Error {
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
        self.in_flight.is_some()
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn fetched_at(&self) -> Option<SystemTime> {
        self.fetched_at
    }

    fn current_fetch(&self, now: Now, limit: Duration) -> Option<&InFlightFetch> {
        let fetch = self.in_flight.as_ref();
        fetch.filter(|fetch| now.since(fetch.started) <= limit)
    }

    fn start(&mut self, now: Now) -> FetchPlan {
        self.last_id += 1;
        let (fetch, plan) = InFlightFetch::new(self.last_id, now);
        self.in_flight = Some(fetch);
        plan
    }

    /// Removes the fetch that ended. Returns whether it was the current one.
    fn clear(&mut self, id: u64) -> bool {
        self.in_flight.take_if(|fetch| fetch.id == id).is_some()
    }
}

// === impl FetchResult ===

impl FetchResult {
    pub(super) fn outcome(&self) -> Fetch {
        match self {
            Self::New { .. } => Fetch::Ok,
            Self::Unchanged => Fetch::Unchanged,
            Self::Failed(_) => Fetch::Error,
        }
    }

    pub(super) fn log(&self, key: &TokenKey, source: SourceKind) {
        let credential = key.credential().as_str();
        let account = key.principal.account();
        let audience = key.audience();
        let source = source.as_str();
        let scopes = match &key.kind {
            TokenKind::Access { scopes } if !scopes.is_empty() => Some(scopes.join(" ")),
            _ => None,
        };
        macro_rules! write_event {
            ($level:expr, [$($advice:ident),*], $($message:tt)+) => {
                tracing::event!(
                    $level,
                    credential, audience, scopes, account, source, $($advice,)* $($message)+
                )
            };
        }
        match self {
            Self::Failed(error) if error.is_repeated => {
                write_event!(Level::DEBUG, [], "{}", error.detail());
            }
            Self::Failed(error) => {
                let fault = error.fault();
                let (advice, help) = (fault.advice_of(error.source()), fault.page());
                write_event!(Level::WARN, [advice, help], "{}", error.detail());
            }
            Self::New { recovered: true } => {
                write_event!(Level::INFO, [], "token: fetching works again");
            }
            Self::New { recovered: false } => {
                write_event!(Level::DEBUG, [], "token: fetched a new one");
            }
            Self::Unchanged => {
                write_event!(Level::DEBUG, [], "token: fetched the same one");
            }
        }
    }
}
