//! Issues tokens, and returns a cached token while it is valid, like the real server.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};

use super::identity::ISSUER;
use super::identity::Identity;
use super::signer::{AccessTokenInfo, TokenSigner};
use super::tree::SCOPES;
use super::verifier::IdTokenClaims;
use crate::lru::LruMap;

/// A token with less time left is replaced. The serverless platforms' metadata server uses the same margin.
const MARGIN: u64 = 240;

/// The capacity of the cache in bytes of scopes, audiences and tokens.
const CAPACITY: usize = 16 << 20;

/// Issues all tokens of one emulator.
pub(super) struct TokenIssuer {
    identity: Identity,
    subject: String,
    signer: Arc<TokenSigner>,
    /// The key has no account, because there is only one account, under two names.
    issued: LruMap<RequestedToken, MintedToken>,
}

/// A requested token. Equal requests share a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RequestedToken {
    /// An access token with sorted, unique scopes. An empty list means the account's own scopes.
    Access { scopes: Vec<String> },
    /// An ID token.
    Id { audience: String, full: bool },
}

/// A token and its expiry (seconds since 1970).
#[derive(Clone)]
pub(super) struct MintedToken {
    pub(super) token: Arc<str>,
    pub(super) expiry: u64,
}

// === impl TokenIssuer ===

impl TokenIssuer {
    pub(super) fn new(identity: Identity, signer: Arc<TokenSigner>) -> Self {
        Self {
            subject: account_number(identity.email.as_str()),
            identity,
            signer,
            issued: LruMap::weighing(CAPACITY, |requested, issued| {
                requested.size() + issued.token.len()
            }),
        }
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the requested token, or `None` if the system has no randomness left.
    pub(super) fn issue(&self, requested: &RequestedToken, now: SystemTime) -> Option<MintedToken> {
        let now = unix(now);
        let issued = self.issued.get_or_try_make(
            requested,
            |issued| issued.remaining(now) >= MARGIN,
            || self.create(requested, now).ok_or(()),
        );
        issued.ok()
    }

    fn create(&self, requested: &RequestedToken, now: u64) -> Option<MintedToken> {
        let expiry = now + self.identity.lifetime.as_secs();
        let token = match requested {
            RequestedToken::Access { scopes } => self.signer.access_token(&AccessTokenInfo {
                member: format!("serviceAccount:{}", self.identity.email),
                scopes: if scopes.is_empty() {
                    SCOPES.map(str::to_owned).to_vec()
                } else {
                    scopes.clone()
                },
                expiry,
            })?,
            RequestedToken::Id { audience, full } => self.signer.id_token(&IdTokenClaims {
                aud: audience.clone(),
                azp: self.subject.clone(),
                email: full.then(|| self.identity.email.to_string()),
                email_verified: full.then_some(true),
                exp: expiry,
                iat: now,
                iss: ISSUER.to_owned(),
                sub: self.subject.clone(),
            })?,
        };
        Some(MintedToken {
            token: token.into(),
            expiry,
        })
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

// === impl RequestedToken ===

impl RequestedToken {
    /// Parses scopes in any order, as `a,b` or `a b`.
    pub(super) fn access(scopes: &str) -> Self {
        let mut scopes: Vec<String> = scopes
            .split([',', ' '])
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self::Access { scopes }
    }

    fn size(&self) -> usize {
        match self {
            Self::Access { scopes } => scopes.iter().map(String::len).sum(),
            Self::Id { audience, .. } => audience.len(),
        }
    }
}

// === impl MintedToken ===

impl MintedToken {
    /// Returns the remaining seconds.
    pub(super) fn remaining(&self, now: u64) -> u64 {
        self.expiry.saturating_sub(now)
    }
}

/// Returns whole seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Returns a number of 21 digits, as accounts have. It is always the same for one address.
pub(super) fn account_number(email: &str) -> String {
    let hash = digest(&SHA256, email.as_bytes());
    let number = hash
        .as_ref()
        .iter()
        .take(8)
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    format!("1{number:020}")
}

#[cfg(test)]
mod tests;
