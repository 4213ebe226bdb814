//! The state of a token in `/status`.

use std::time::Duration;

use serde::Serialize;

use super::{Time, text};
use crate::policy::{Credential, TokenKey, TokenKind};
use crate::token::SlotStatus;

#[derive(Debug, Serialize)]
pub(super) struct TokenRow {
    credential: Credential,
    audience: Option<String>,
    scopes: Vec<String>,
    /// The account of the token. `None` means the instance's own.
    account: Option<String>,
    /// The principal that obtains the token for that account.
    via: Option<String>,
    /// `empty`, `fresh`, `stale` or `expired`.
    state: &'static str,
    expires: Option<Time>,
    left_seconds: Option<u64>,
    fetched: Option<Time>,
    fetching: bool,
    /// Whether an upstream answered 401 to it.
    suspect: bool,
    failures: u32,
    last_error: Option<String>,
    advice: Option<&'static str>,
    retry_in_seconds: Option<u64>,
}

/// Returns the token's audience or scopes.
pub(super) fn purpose(key: &TokenKey) -> (Option<String>, Vec<String>) {
    match &key.kind {
        TokenKind::Access { scopes } => (None, scopes.iter().map(text).collect()),
        TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
            (Some(audience.to_string()), Vec::new())
        }
    }
}

// === impl TokenRow ===

impl From<SlotStatus> for TokenRow {
    fn from(status: SlotStatus) -> Self {
        let (audience, scopes) = purpose(&status.key);
        Self {
            credential: status.key.credential(),
            audience,
            scopes,
            account: status.key.principal.account().map(text),
            via: status.key.principal.chain_clause(),
            state: status.state.as_str(),
            expires: status.expires_at.map(Time),
            left_seconds: status.left.as_ref().map(Duration::as_secs),
            fetched: status.fetched_at.map(Time),
            fetching: status.fetching,
            suspect: status.suspect,
            failures: status.failures,
            last_error: status.last_error,
            advice: status
                .last_fault
                .zip(status.last_source)
                .map(|(fault, source)| fault.advice_of(source)),
            retry_in_seconds: status.retry_in.as_ref().map(Duration::as_secs),
        }
    }
}
