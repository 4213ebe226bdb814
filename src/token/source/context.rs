//! What a source may use of the process besides its own client.

use std::sync::{Arc, OnceLock, Weak};

use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::cache::{CacheInner, TokenCache};
use crate::token::facts::{Facts, FactsInner};
use crate::token::fetch_error::FetchError;
use crate::token::slot::Slot;

/// The tokens of other principals, and the facts. Cache and facts hold the sources, so these references are weak.
/// Clones share one context.
#[derive(Clone, Debug, Default)]
pub(in crate::token) struct SourceContext(Arc<ContextRefs>);

#[derive(Debug, Default)]
struct ContextRefs {
    cache: OnceLock<Weak<CacheInner>>,
    facts: OnceLock<Weak<FactsInner>>,
}

// === impl SourceContext ===

impl SourceContext {
    /// Sets the cache. Later calls have no effect.
    pub(in crate::token) fn set_cache(&self, cache: &Arc<CacheInner>) {
        let _ = self.0.cache.set(Arc::downgrade(cache));
    }

    /// Sets the facts. Later calls have no effect.
    pub(in crate::token) fn set_facts(&self, facts: &Arc<FactsInner>) {
        let _ = self.0.facts.set(Arc::downgrade(facts));
    }

    /// Returns the slot of a principal's access token. Sources and requests share it.
    pub(super) fn access_token(
        &self,
        principal: &Principal,
        scope: &str,
    ) -> Result<Arc<Slot>, FetchError> {
        let cache = self.0.cache.get().and_then(TokenCache::upgrade);
        let key = TokenKey {
            kind: TokenKind::Access {
                scopes: [scope.into()].into(),
            },
            principal: principal.clone(),
        };
        Ok(cache.ok_or_else(FetchError::aborted)?.slot(&key))
    }

    pub(super) fn facts(&self) -> Result<Facts, FetchError> {
        let facts = self.0.facts.get().and_then(Facts::upgrade);
        facts.ok_or_else(FetchError::aborted)
    }
}
