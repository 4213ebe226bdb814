//! The source credential of a file that impersonates an account.

use std::sync::Arc;
use std::time::Duration;

use super::{FetchFuture, TokenSource};
use crate::error::SourceKind;
use crate::policy::{Principal, TokenKey};
use crate::token::fact::Fact;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

/// The source credential of a file: the source of a base credential for [`Principal::Source`].
#[derive(Debug)]
pub(super) struct NestedSource(pub(super) Arc<dyn TokenSource>);

// === impl NestedSource ===

impl TokenSource for NestedSource {
    fn describe(&self) -> &str {
        self.0.describe()
    }

    fn kind(&self) -> SourceKind {
        self.0.kind()
    }

    fn serves(&self, principal: &Principal) -> bool {
        *principal == Principal::Source
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        self.0.fetch(key, priority)
    }

    fn time_limit(&self) -> Duration {
        self.0.time_limit()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        self.0.fact(match fact {
            Fact::Email(_) => Fact::Email(&Principal::Attached),
            fact => fact,
        })
    }
}
