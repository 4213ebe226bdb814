//! The state that all slots share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Slot;
use crate::lock::lock;
use crate::policy::{Credential, TokenKey};
use crate::telemetry::Metrics;
use crate::token::clock::Now;
use crate::token::source::TokenSources;

/// The state that all slots share.
#[derive(Debug)]
pub(in crate::token) struct SlotRegistry {
    pub(in crate::token) sources: TokenSources,
    pub(super) metrics: Arc<Metrics>,
    /// Every slot that the cache or a route holds. Two slots of one key would fetch twice.
    alive: Mutex<HashMap<TokenKey, Weak<Slot>>>,
    sweep_at: usize,
}

// === impl SlotRegistry ===

impl SlotRegistry {
    /// `sweep_at`: the number of registered slots from which those that were dropped are removed.
    pub(in crate::token) fn new(
        sources: TokenSources,
        metrics: Arc<Metrics>,
        sweep_at: usize,
    ) -> Self {
        Self {
            sources,
            metrics,
            alive: Mutex::default(),
            sweep_at,
        }
    }

    /// Returns the registered slot of this key, or a new one.
    pub(in crate::token) fn slot(this: &Arc<Self>, key: &TokenKey) -> Arc<Slot> {
        let mut alive = this.alive();
        if let Some(slot) = alive.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        if alive.len() >= this.sweep_at {
            alive.retain(|_, slot| slot.strong_count() > 0);
        }
        let slot = Arc::new(Slot::new(key.clone(), Arc::clone(this)));
        alive.insert(key.clone(), Arc::downgrade(&slot));
        slot
    }

    /// Publishes the earliest expiry of each kind of token.
    pub(in crate::token) fn publish_expiries(&self, now: Now) {
        let slots = self.slots();
        for credential in [Credential::Access, Credential::Id] {
            let earliest = slots
                .iter()
                .filter(|slot| slot.key().credential() == credential)
                .filter_map(|slot| slot.expiry(now))
                .min();
            self.metrics.set_token_expiry(credential, earliest);
        }
    }

    /// Returns every registered slot. The register is not locked while the caller uses them.
    pub(in crate::token) fn slots(&self) -> Vec<Arc<Slot>> {
        self.alive().values().filter_map(Weak::upgrade).collect()
    }

    pub(in crate::token) fn alive(&self) -> MutexGuard<'_, HashMap<TokenKey, Weak<Slot>>> {
        lock(&self.alive)
    }
}
