//! The slot of one token key: its current token, at most one fetch in flight, and the times of refresh and backoff.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwapOption;

use super::clock::Now;
use super::fetch_error::FetchError;
use super::priority::FetchPriority;
use super::value::{Freshness, Token};
use crate::error::Error;
use crate::lock::lock;
use crate::policy::{Credential, TokenKey};
use crate::telemetry::Lookup;

mod fetch_task;
mod shared;
mod state;
mod status;

use fetch_task::FetchPlan;
pub(super) use fetch_task::FetchWaiter;
pub(super) use shared::SlotRegistry;
use state::{FetchResult, FetchState};
pub use status::SlotState;
pub(crate) use status::SlotStatus;

/// The largest number of fetches that one request waits for. A request needs another fetch if the last one was
/// suspended with the instance. The limit prevents an endless wait.
const MAX_WAITS: u32 = 3;

/// The cache entry of one key's token.
///
/// A route resolves its slot once and keeps it. The slot stays registered in its cache while any reference to it
/// exists.
#[derive(Debug)]
pub struct Slot {
    key: TokenKey,
    shared: Arc<SlotRegistry>,
    current: ArcSwapOption<Token>,
    /// The current token was returned at least once, so the liveness probe refreshes it.
    used: AtomicBool,
    /// A route holds the slot, so the liveness probe refreshes it.
    held_by_route: AtomicBool,
    priority: FetchPriority,
    /// Never held across an await or while a task is spawned.
    state: Mutex<FetchState>,
}

/// What a request without a fresh token does next.
enum NextStep {
    Serve(Arc<Token>),
    Wait(FetchWaiter),
    Fail(Error),
}

/// What replaces a token that an upstream rejected.
enum Replacement {
    /// The slot has another token already.
    Other(Arc<Token>),
    /// A fetch is in flight.
    Fetching(FetchWaiter),
    /// No fetch may begin now.
    NotNow,
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(key: TokenKey, shared: Arc<SlotRegistry>) -> Self {
        let priority = match key.credential() {
            // Requests cannot add access token keys; only the configuration can.
            Credential::Access => FetchPriority::high(),
            _ => FetchPriority::default(),
        };
        Self {
            key,
            shared,
            priority,
            current: ArcSwapOption::empty(),
            used: AtomicBool::new(false),
            held_by_route: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Returns the key of the token.
    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Returns the token if it is fresh. Takes no lock and does not wait. Counts a `hit`, but no miss: the caller calls
    /// [`token`](Self::token) next.
    pub fn ready(&self, now: Now) -> Option<Arc<Token>> {
        let current = self.current.load();
        let token = current.as_ref()?;
        if token.freshness(now) != Freshness::Fresh {
            return None;
        }
        self.mark_used();
        self.count(Lookup::Hit);
        Some(Arc::clone(token))
    }

    /// Returns the token, after a fetch if necessary.
    ///
    /// # Errors
    ///
    /// `TokenUnavailable` or `TokenRefused`, with the reason of the last fetch and the time until the next. All
    /// requests that wait get the same error.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.ready(Now::now()) {
            return Ok(token);
        }
        let (result, lookup) = self.token_and_lookup().await;
        self.count(lookup);
        result
    }

    /// Returns the token for a source that obtains another token with it. It is not counted as a lookup,
    /// because no request carries it.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(super) async fn token_for_source(self: &Arc<Self>) -> Result<Arc<Token>, FetchError> {
        let (result, _) = self.token_and_lookup().await;
        result.map_err(|_| {
            let state = self.state();
            let mut error = state.backoff().last_error().cloned();
            if let Some(error) = &mut error {
                error.retry_after = state.backoff().left(Now::now());
            }
            error.unwrap_or_else(FetchError::aborted)
        })
    }

    async fn token_and_lookup(self: &Arc<Self>) -> (Result<Arc<Token>, Error>, Lookup) {
        self.mark_used();
        let mut lookup = Lookup::Stale;
        for _ in 0..MAX_WAITS {
            match self.next_step(Now::now()) {
                NextStep::Serve(token) => {
                    // The end of the fetch has reset the mark.
                    self.mark_used();
                    return (Ok(token), lookup);
                }
                NextStep::Wait(waiter) => {
                    lookup = Lookup::Wait;
                    waiter.wait().await;
                }
                NextStep::Fail(error) => return (Err(error), Lookup::Error),
            }
        }
        // The instance was suspended during every fetch.
        let now = Now::now();
        match self.usable_token(now) {
            Some(token) => (Ok(token), lookup),
            None => (Err(self.state().error(now)), Lookup::Error),
        }
    }

    /// Starts a fetch if the token is not fresh, and no fetch is in flight or prevented by backoff. Returns at once.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn refresh_unless_fresh(self: &Arc<Self>) {
        let _runs_in_background = self.refresh();
    }

    /// Starts the first fetch, and makes the liveness probe keep the token fresh even without requests. For the slots
    /// of routes. Returns at once.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn prefetch(self: &Arc<Self>) {
        self.priority.raise();
        self.held_by_route.store(true, Ordering::Relaxed);
        self.refresh_unless_fresh();
    }

    /// Reverts [`prefetch`](Self::prefetch), when no route holds the slot any more. The token is then refreshed only
    /// while requests use it.
    pub(crate) fn release(&self) {
        self.held_by_route.store(false, Ordering::Relaxed);
    }

    /// Returns whether the slot has a token that may be sent.
    pub fn has_token(&self) -> bool {
        self.usable_token(Now::now()).is_some()
    }

    /// Returns another token than `suspect`, which an upstream rejected with 401, or `None` if none is available now.
    ///
    /// A 401 causes at most one fetch a minute.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub async fn fetch_replacement(self: &Arc<Self>, suspect: &Token) -> Option<Arc<Token>> {
        match self.replacement(suspect, Now::now()) {
            Replacement::Other(token) => Some(token),
            Replacement::Fetching(waiter) => {
                waiter.wait().await;
                self.usable_token(Now::now())
                    .filter(|token| !token.same_value(suspect))
            }
            Replacement::NotNow => None,
        }
    }

    /// Like [`fetch_replacement`](Self::fetch_replacement), for a request that cannot be sent again. It fetches a token
    /// for the next request.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(crate) fn start_replacement(self: &Arc<Self>, suspect: &Token) {
        let _runs_in_background = self.replacement(suspect, Now::now());
    }

    /// Returns the state of the slot for the status page.
    pub fn status(&self) -> SlotStatus {
        let now = Now::now();
        let current = self.current.load_full();
        SlotStatus::new(&self.key, current.as_deref(), &self.state(), now)
    }

    /// Raises the priority of fetches. Called when a route or the configuration names this key.
    pub(super) fn raise_priority(&self) {
        self.priority.raise();
    }

    /// Returns whether the liveness probe should keep this token fresh.
    pub(super) fn in_use(&self) -> bool {
        self.held_by_route.load(Ordering::Relaxed) || self.used.load(Ordering::Relaxed)
    }

    /// Returns when the token expires, for the metric. An expired token counts only if its replacement failed.
    pub(super) fn expiry(&self, now: Now) -> Option<std::time::SystemTime> {
        let token = self.current.load_full()?;
        let counts = !token.left(now).is_zero() || self.state().failures() > 0;
        counts.then(|| token.expires_at())
    }

    pub(super) fn refresh(self: &Arc<Self>) -> Option<FetchWaiter> {
        let now = Now::now();
        if self.freshness(now) == Some(Freshness::Fresh) {
            return None;
        }
        let mut state = self.state();
        let plan = self.plan_fetch(&mut state, now);
        drop(state);
        plan.map(|plan| plan.execute(self))
    }

    fn next_step(self: &Arc<Self>, now: Now) -> NextStep {
        let mut state = self.state();
        // Loaded under the lock, so that the result of a fetch that has just ended is seen.
        let current = self.current.load_full();
        let token = current.filter(|token| token.freshness(now) != Freshness::Expired);
        if let Some(token) = token
            .as_ref()
            .filter(|token| token.freshness(now) == Freshness::Fresh)
        {
            return NextStep::Serve(Arc::clone(token));
        }
        let plan = self.plan_fetch(&mut state, now);
        let error = state.error(now);
        drop(state);
        let waiter = plan.map(|plan| plan.execute(self));
        match (token, waiter) {
            (Some(token), None) => NextStep::Serve(token),
            (Some(token), Some(_)) if token.freshness(now) >= Freshness::Stale => {
                NextStep::Serve(token)
            }
            (_, Some(waiter)) => NextStep::Wait(waiter),
            (None, None) => NextStep::Fail(error),
        }
    }

    fn replacement(self: &Arc<Self>, suspect: &Token, now: Now) -> Replacement {
        let mut state = self.state();
        let current = self.usable_token(now);
        if let Some(other) = current.filter(|token| !token.same_value(suspect)) {
            return Replacement::Other(other);
        }
        let plan = state.plan_replacement(now, self.shared.sources.limit(&self.key));
        drop(state);
        plan.map_or(Replacement::NotNow, |plan| {
            Replacement::Fetching(plan.execute(self))
        })
    }

    fn plan_fetch(&self, state: &mut FetchState, now: Now) -> Option<FetchPlan> {
        let usable = self.usable_token(now).is_some();
        state.plan_fetch(now, usable, self.shared.sources.limit(&self.key))
    }

    /// Records the result of a fetch. The fetch's task calls it when it ends or is dropped.
    fn fetched(&self, id: u64, started: Now, result: Result<Token, FetchError>) {
        let now = Now::now();
        let limit = self.shared.sources.limit(&self.key);
        let mut state = self.state();
        let result = match result {
            Ok(token) => {
                let known = self.current.load_full();
                let (to_store, result) = state.succeeded(id, token, known, now);
                if let Some(token) = to_store {
                    self.current.store(Some(token));
                    self.used.store(false, Ordering::Relaxed);
                }
                result
            }
            Err(error) => state.failed(id, error, now.since(started) > limit, now),
        };
        drop(state);
        self.report(&result, now.since(started));
        self.shared.publish_expiries(now);
    }

    fn report(&self, result: &FetchResult, took: std::time::Duration) {
        let source = self.shared.sources.kind(&self.key);
        self.shared.metrics.token_fetched_from(
            source,
            self.key.credential(),
            result.outcome(),
            took,
        );
        result.log(&self.key, source);
        if let FetchResult::Failed(error) = result {
            let recent = self.shared.metrics.recent();
            recent.not_fetched(&self.key, &error.problem());
        }
    }

    fn usable_token(&self, now: Now) -> Option<Arc<Token>> {
        self.current
            .load_full()
            .filter(|token| token.freshness(now) != Freshness::Expired)
    }

    fn freshness(&self, now: Now) -> Option<Freshness> {
        self.current
            .load()
            .as_ref()
            .map(|token| token.freshness(now))
    }

    fn mark_used(&self) {
        // Loads first: a store at every hit would move the cache line between cores.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn count(&self, lookup: Lookup) {
        self.shared
            .metrics
            .token_lookup(self.key.credential(), lookup);
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests;
