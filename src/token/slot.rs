//! One key: its current token, at most one fetch under way, and what to do until the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use super::clock::Now;
use super::failure::FetchError;
use super::priority::FetchPriority;
use super::value::{Age, Token};
use crate::error::Error;
use crate::policy::{Credential, TokenKey};
use crate::telemetry::Lookup;

mod flight;
mod shared;
mod state;
mod status;

use flight::Departure;
pub(super) use flight::Landing;
pub(super) use shared::Shared;
use state::{Landed, State};
pub use status::{SlotState, SlotStatus};

/// A request waits for so many fetches, one after another, at most: a second one is due where the first was frozen
/// together with the instance.
const WAITS: u32 = 3;

/// The place of one key's token.
///
/// Routes resolve theirs once and keep it; the slot stays alive and known to its cache for as long as anyone holds it.
#[derive(Debug)]
pub struct Slot {
    key: TokenKey,
    shared: Arc<Shared>,
    current: ArcSwapOption<Token>,
    /// The current token was handed out at least once.
    used: AtomicBool,
    /// A route has it, so it is kept fresh unasked.
    kept: AtomicBool,
    priority: FetchPriority,
    /// Never held across an await, nor while a task is spawned.
    state: Mutex<State>,
}

/// What a request that found no fresh token does next.
enum Step {
    Serve(Arc<Token>),
    Wait(Landing),
    Fail(Error),
}

/// What becomes of a token that an upstream rejected.
enum Renewal {
    /// There is another one already.
    Other(Arc<Token>),
    /// One is being fetched.
    Fetching(Landing),
    /// Not now.
    Not,
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(key: TokenKey, shared: Arc<Shared>) -> Self {
        let priority = match key.credential() {
            // Their number is the configuration's, never that of requests.
            Credential::Access => FetchPriority::high(),
            _ => FetchPriority::default(),
        };
        Self {
            key,
            shared,
            priority,
            current: ArcSwapOption::empty(),
            used: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// What the slot is for.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// The token, where it is fresh: the way that takes no lock and never waits. Counts a `hit`; a miss counts nothing,
    /// because [`token`](Self::token) follows.
    pub fn ready(&self, now: Now) -> Option<Arc<Token>> {
        let current = self.current.load();
        let token = current.as_ref()?;
        if token.age(now) != Age::Fresh {
            return None;
        }
        self.mark_used();
        self.count(Lookup::Hit);
        Some(Arc::clone(token))
    }

    /// The token, if need be after a fetch.
    ///
    /// # Errors
    ///
    /// `TokenUnavailable` or `TokenRefused`, with the reason of the last fetch and the wait until the next; the same for
    /// all who wait.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, where no fetch can be started.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Error> {
        if let Some(token) = self.ready(Now::now()) {
            return Ok(token);
        }
        let (result, lookup) = self.awaited().await;
        self.count(lookup);
        result
    }

    /// The token for a source that obtains another one with it. It counts as no lookup, because no request carries it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(super) async fn token_for_source(self: &Arc<Self>) -> Result<Arc<Token>, FetchError> {
        let (result, _) = self.awaited().await;
        result.map_err(|_| {
            let state = self.state();
            let mut error = state.backoff().last_error().cloned();
            if let Some(error) = &mut error {
                error.retry_after = state.backoff().left(Now::now());
            }
            error.unwrap_or_else(FetchError::aborted)
        })
    }

    async fn awaited(self: &Arc<Self>) -> (Result<Arc<Token>, Error>, Lookup) {
        self.mark_used();
        let mut lookup = Lookup::Stale;
        for _ in 0..WAITS {
            match self.step(Now::now()) {
                Step::Serve(token) => return (Ok(token), lookup),
                Step::Wait(landing) => {
                    lookup = Lookup::Wait;
                    landing.wait().await;
                }
                Step::Fail(error) => return (Err(error), Lookup::Error),
            }
        }
        // The last round did not settle it.
        let now = Now::now();
        match self.usable(now) {
            Some(token) => (Ok(token), lookup),
            None => (Err(self.state().refusal(now)), Lookup::Error),
        }
    }

    /// Starts a fetch where the token is not fresh and none is under way or held off, and returns at once.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn refresh_if_stale(self: &Arc<Self>) {
        let _behind_us = self.refresh();
    }

    /// Starts the first fetch, and has the liveness probe keep the token fresh from now on though no one asks for it:
    /// for the slots of routes. Returns at once.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn prefetch(self: &Arc<Self>) {
        self.priority.raise();
        self.kept.store(true, Ordering::Relaxed);
        self.refresh_if_stale();
    }

    /// No route has it any more: it is kept fresh for as long as requests use it.
    pub fn release(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }

    /// There is a token that may be sent.
    pub fn has_token(&self) -> bool {
        self.usable(Now::now()).is_some()
    }

    /// An upstream rejected `suspect` with 401: another token, or `None` where none can be had now.
    ///
    /// For that reason a token is fetched at most once a minute.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn replace(self: &Arc<Self>, suspect: &Token) -> Option<Arc<Token>> {
        match self.renewal(suspect, Now::now()) {
            Renewal::Other(token) => Some(token),
            Renewal::Fetching(landing) => {
                landing.wait().await;
                self.usable(Now::now())
                    .filter(|token| !token.same_value(suspect))
            }
            Renewal::Not => None,
        }
    }

    /// As [`replace`](Self::replace), for a request that cannot be sent again: the next one shall have a new token.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn renew(self: &Arc<Self>, suspect: &Token) {
        let _behind_us = self.renewal(suspect, Now::now());
    }

    /// How it stands, for people.
    pub fn status(&self) -> SlotStatus {
        let now = Now::now();
        let current = self.current.load_full();
        SlotStatus::new(&self.key, current.as_deref(), &self.state(), now)
    }

    /// A route or the configuration names this key.
    pub(super) fn raise_priority(&self) {
        self.priority.raise();
    }

    /// Somebody wants this token to be fresh when the liveness probe comes by.
    pub(super) fn in_use(&self) -> bool {
        self.kept.load(Ordering::Relaxed) || self.used.load(Ordering::Relaxed)
    }

    /// When the token expires, for the metric: one that has expired counts only where it should have been replaced.
    pub(super) fn expiry(&self, now: Now) -> Option<std::time::SystemTime> {
        let token = self.current.load_full()?;
        let counts = !token.left(now).is_zero() || self.state().failures() > 0;
        counts.then(|| token.expires_at())
    }

    pub(super) fn refresh(self: &Arc<Self>) -> Option<Landing> {
        let now = Now::now();
        if self.age(now) == Some(Age::Fresh) {
            return None;
        }
        let mut state = self.state();
        let departure = self.may_fetch(&mut state, now);
        drop(state);
        departure.map(|departure| departure.launch(self))
    }

    fn step(self: &Arc<Self>, now: Now) -> Step {
        let mut state = self.state();
        // Looked at under the lock, so that a fetch that has just landed is seen.
        let current = self.current.load_full();
        let token = current.filter(|token| token.age(now) != Age::Dead);
        if let Some(token) = token.as_ref().filter(|token| token.age(now) == Age::Fresh) {
            return Step::Serve(Arc::clone(token));
        }
        let departure = self.may_fetch(&mut state, now);
        let held_off = state.refusal(now);
        drop(state);
        let landing = departure.map(|departure| departure.launch(self));
        match (token, landing) {
            (Some(token), None) => Step::Serve(token),
            (Some(token), Some(_)) if token.age(now) >= Age::Stale => Step::Serve(token),
            (_, Some(landing)) => Step::Wait(landing),
            (None, None) => Step::Fail(held_off),
        }
    }

    fn renewal(self: &Arc<Self>, suspect: &Token, now: Now) -> Renewal {
        let mut state = self.state();
        let current = self.usable(now);
        if let Some(other) = current.filter(|token| !token.same_value(suspect)) {
            return Renewal::Other(other);
        }
        let departure = state.renew(now, self.shared.sources.limit(&self.key));
        drop(state);
        departure.map_or(Renewal::Not, |departure| {
            Renewal::Fetching(departure.launch(self))
        })
    }

    fn may_fetch(&self, state: &mut State, now: Now) -> Option<Departure> {
        let usable = self.usable(now).is_some();
        state.depart(now, usable, self.shared.sources.limit(&self.key))
    }

    /// Takes the result of a fetch. Called by the fetch's own task, at its end or when it is dropped.
    fn land(&self, id: u64, started: Now, result: Result<Token, FetchError>) {
        let now = Now::now();
        let limit = self.shared.sources.limit(&self.key);
        let mut state = self.state();
        let landed = match result {
            Ok(token) => {
                let known = self.current.load_full();
                let (keep, landed) = state.landed(id, token, known, now);
                if let Some(token) = keep {
                    self.current.store(Some(token));
                    self.used.store(false, Ordering::Relaxed);
                }
                landed
            }
            Err(error) => state.failed(id, error, now.since(started) > limit, now),
        };
        drop(state);
        self.report(&landed, now.since(started));
        self.shared.publish_expiries(now);
    }

    fn report(&self, landed: &Landed, took: std::time::Duration) {
        let source = self.shared.sources.kind(&self.key);
        self.shared.metrics.token_fetched_from(
            source,
            self.key.credential(),
            landed.outcome(),
            took,
        );
        landed.log(&self.key);
        if let Landed::Failed(error) = landed {
            let recent = self.shared.metrics.recent();
            recent.not_fetched(&self.key, (error.fault(), error.source()), error.detail());
        }
    }

    fn usable(&self, now: Now) -> Option<Arc<Token>> {
        self.current
            .load_full()
            .filter(|token| token.age(now) != Age::Dead)
    }

    fn age(&self, now: Now) -> Option<Age> {
        self.current.load().as_ref().map(|token| token.age(now))
    }

    fn mark_used(&self) {
        // A load first: a store at every hit would move the cache line from core to core.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn count(&self, lookup: Lookup) {
        self.shared
            .metrics
            .token_lookup(self.key.credential(), lookup);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
