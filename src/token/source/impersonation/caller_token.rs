//! The token that authorizes calls for an account.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::policy::Principal;
use crate::token::facts::Facts;
use crate::token::fetch_error::FetchError;
use crate::token::slot::Slot;
use crate::token::source::iam::{IamCaller, RequiredRole};
use crate::token::value::Token;

/// The token that authorizes calls for an account.
pub(in crate::token::source) struct CallerToken {
    pub(super) facts: Facts,
    /// The name of the base if it has no e-mail address.
    pub(super) holder: Option<Arc<str>>,
    pub(super) base: Principal,
    pub(super) role: RequiredRole,
    pub(super) quota_project: Option<HeaderValue>,
    pub(super) slot: Arc<Slot>,
    pub(super) token: Arc<Token>,
    pub(super) end: Instant,
    pub(super) renewed: bool,
}

// === impl CallerToken ===

impl CallerToken {
    pub(in crate::token::source) fn caller(&self) -> IamCaller<'_> {
        IamCaller {
            token: &self.token,
            principal: &self.base,
            holder: self.holder.as_deref(),
            facts: &self.facts,
            role: self.role,
            quota_project: self.quota_project.as_ref(),
        }
    }

    /// Fetches another token, once, if the API refused this one. Returns whether there is another one.
    pub(in crate::token::source) async fn renew(&mut self, error: &FetchError) -> bool {
        if self.renewed || error.status != Some(StatusCode::UNAUTHORIZED) {
            return false;
        }
        self.renewed = true;
        let replaced = timeout_at(self.end, self.slot.fetch_replacement(&self.token)).await;
        let Ok(Some(token)) = replaced else {
            return false;
        };
        self.token = token;
        true
    }
}
