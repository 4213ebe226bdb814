//! What a source may use of the process: tokens of other principals, and facts.

use std::sync::{Arc, OnceLock, Weak};

use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::cache::{self, TokenCache};
use crate::token::facts::{self, Facts};
use crate::token::fetch_error::FetchError;
use crate::token::slot::Slot;

/// The cache and the facts that are made from the sources. Both hold the sources, so these are weak references. Clones are the
/// same context.
#[derive(Clone, Debug, Default)]
pub(in crate::token) struct SourceContext(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cache: OnceLock<Weak<cache::Inner>>,
    facts: OnceLock<Weak<facts::Inner>>,
}

// === impl SourceContext ===

impl SourceContext {
    /// The first cache counts.
    pub(in crate::token) fn set_cache(&self, cache: &Arc<cache::Inner>) {
        let _ = self.0.cache.set(Arc::downgrade(cache));
    }

    /// The first facts count.
    pub(in crate::token) fn set_facts(&self, facts: &Arc<facts::Inner>) {
        let _ = self.0.facts.set(Arc::downgrade(facts));
    }

    /// Returns the slot of a principal's access token, which every source shares with every request.
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
