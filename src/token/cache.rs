//! All slots: the bounded cache of keys, and the register of every slot that someone still holds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::timeout;

use super::clock::Now;
use super::slot::{Landing, Shared, Slot, SlotStatus};
use super::source::TokenSources;
use crate::policy::{TokenKey, TokenKind};
use crate::telemetry::Metrics;

/// Keys that are kept, in each part of the cache; audiences may come from requests, so there must be an end.
const CAPACITY: usize = 1_024;

/// The tokens of the process; clones are the same cache.
#[derive(Clone, Debug)]
pub struct TokenCache(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// Keys that requests name.
    slots: Cache<TokenKey, Arc<Slot>>,
    /// Keys that routes and the configuration name, which the others must not push out.
    configured: Cache<TokenKey, Arc<Slot>>,
    /// Access tokens; scopes and accounts come from the configuration only.
    access: Cache<TokenKey, Arc<Slot>>,
    shared: Arc<Shared>,
}

/// Fetches under way.
#[derive(Debug)]
#[must_use = "the fetches go on either way; `done` waits for them"]
pub struct Refresh(Vec<Landing>);

// === impl TokenCache ===

impl TokenCache {
    /// An empty cache for tokens from these sources.
    pub fn new(sources: TokenSources, metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(CAPACITY, sources, metrics)
    }

    fn with_capacity(capacity: usize, sources: TokenSources, metrics: Arc<Metrics>) -> Self {
        let part = || {
            Cache::builder()
                .max_capacity(capacity as u64)
                .eviction_policy(EvictionPolicy::lru())
                .build()
        };
        let shared = Arc::new(Shared::new(sources, metrics, 2 * CAPACITY));
        let inner = Arc::new(Inner {
            slots: part(),
            configured: part(),
            access: part(),
            shared: Arc::clone(&shared),
        });
        shared.sources.context().set_cache(&inner);
        Self(inner)
    }

    /// The cache that a source was given, unless it is gone.
    pub(super) fn upgrade(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(Self)
    }

    /// The slot of a key; nothing is fetched yet.
    pub fn slot(&self, key: &TokenKey) -> Arc<Slot> {
        let part = match key.kind {
            TokenKind::Access { .. } => &self.0.access,
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => &self.0.slots,
        };
        part.get_with_by_ref(key, || Shared::slot(&self.0.shared, key))
    }

    /// The slot of a key that a route or the configuration names: keys that requests name neither push it out nor delay its
    /// fetches.
    pub fn configured_slot(&self, key: &TokenKey) -> Arc<Slot> {
        if let TokenKind::Access { .. } = key.kind {
            return self.slot(key);
        }
        let slot = self
            .0
            .configured
            .get_with_by_ref(key, || Shared::slot(&self.0.shared, key));
        slot.raise_priority();
        slot
    }

    /// Starts a fetch for every token that is in use and no longer fresh, and returns at once; see [`Refresh::done`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn refresh_stale(&self) -> Refresh {
        // An expired token that nobody replaces is forgotten by the metric here, for want of a timer.
        self.0.shared.publish_expiries(Now::now());
        let slots = self.0.shared.slots();
        let in_use = slots.iter().filter(|slot| slot.in_use());
        Refresh(in_use.filter_map(Slot::refresh).collect())
    }

    /// How each slot stands, in the order of their keys' text.
    pub fn statuses(&self) -> Vec<SlotStatus> {
        let slots = self.0.shared.slots();
        let mut statuses: Vec<_> = slots.iter().map(|slot| slot.status()).collect();
        statuses.sort_by_cached_key(|status| {
            let key = &status.key;
            (format!("{:?}", key.kind), key.principal.clone())
        });
        statuses
    }
}

// === impl Refresh ===

impl Refresh {
    /// How many fetches are under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything was fresh, or is held off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for their end, but no longer than `at_most`: for a probe during which there is CPU.
    pub async fn done(self, at_most: Duration) {
        let all = async {
            for landing in self.0 {
                landing.wait().await;
            }
        };
        // Whether they ended or the time did is for the slots to tell.
        let _ = timeout(at_most, all).await;
    }
}

#[cfg(test)]
mod tests;
