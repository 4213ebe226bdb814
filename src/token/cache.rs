//! All slots: the bounded cache of keys, and the register of every slot that is still referenced.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::clock::Now;
use super::slot::{FetchWaiter, Slot, SlotRegistry, SlotStatus};
use super::source::TokenSources;
use crate::lru::LruMap;
use crate::policy::{TokenKey, TokenKind};
use crate::telemetry::Metrics;

/// The largest number of keys in each part of the cache. It is bounded because requests can name audiences.
const CAPACITY: usize = 1_024;

/// The tokens of the process. Clones share one cache.
#[derive(Clone, Debug)]
pub struct TokenCache(Arc<CacheInner>);

#[derive(Debug)]
pub(super) struct CacheInner {
    /// Keys that requests name.
    slots: LruMap<TokenKey, Arc<Slot>>,
    /// Keys that routes and the configuration name. Keys of requests must not evict them.
    configured: LruMap<TokenKey, Arc<Slot>>,
    /// Access tokens. Their scopes and accounts come only from the configuration.
    access: LruMap<TokenKey, Arc<Slot>>,
    shared: Arc<SlotRegistry>,
}

/// The fetches in flight after a refresh.
#[derive(Debug)]
#[must_use = "the fetches continue in any case; `done` waits for them"]
pub(crate) struct Refresh(Vec<FetchWaiter>);

// === impl TokenCache ===

impl TokenCache {
    /// Creates an empty cache for tokens from these sources.
    pub fn new(sources: TokenSources, metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(CAPACITY, sources, metrics)
    }

    fn with_capacity(capacity: usize, sources: TokenSources, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(SlotRegistry::new(sources, metrics, 2 * CAPACITY));
        let inner = Arc::new(CacheInner {
            slots: LruMap::new(capacity),
            configured: LruMap::new(capacity),
            access: LruMap::new(capacity),
            shared: Arc::clone(&shared),
        });
        shared.sources.context().set_cache(&inner);
        Self(inner)
    }

    /// Returns the cache that a source refers to, unless it was dropped.
    pub(super) fn upgrade(inner: &Weak<CacheInner>) -> Option<Self> {
        inner.upgrade().map(Self)
    }

    /// Returns the slot of a key. It starts no fetch.
    pub fn slot(&self, key: &TokenKey) -> Arc<Slot> {
        let part = match key.kind {
            TokenKind::Access { .. } => &self.0.access,
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => &self.0.slots,
        };
        part.get_or_make(key, || SlotRegistry::slot(&self.0.shared, key))
    }

    /// Returns the slot of a key that a route or the configuration names. Keys that requests name neither evict it nor
    /// delay its fetches.
    pub fn configured_slot(&self, key: &TokenKey) -> Arc<Slot> {
        if let TokenKind::Access { .. } = key.kind {
            return self.slot(key);
        }
        let slot = self
            .0
            .configured
            .get_or_make(key, || SlotRegistry::slot(&self.0.shared, key));
        slot.raise_priority();
        slot
    }

    /// Starts a fetch for every token that is in use and not fresh. Returns at once; [`Refresh::done`] waits.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(crate) fn refresh_stale(&self) -> Refresh {
        // Without a timer, this is where the metric drops expired tokens that are not in use.
        self.0.shared.publish_expiries(Now::now());
        let slots = self.0.shared.slots();
        let in_use = slots.iter().filter(|slot| slot.in_use());
        Refresh(in_use.filter_map(Slot::refresh).collect())
    }

    /// Returns the state of each slot, sorted by key.
    pub(crate) fn statuses(&self) -> Vec<SlotStatus> {
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
    /// Waits for the end of the fetches, at most for `at_most`. A probe calls it, because the instance has CPU until
    /// the probe is answered.
    pub(crate) async fn done(self, at_most: Duration) {
        let all = async {
            for waiter in self.0 {
                waiter.wait().await;
            }
        };
        // The slots report whether the fetches ended in time.
        let _ = timeout(at_most, all).await;
    }
}

#[cfg(test)]
mod tests;
