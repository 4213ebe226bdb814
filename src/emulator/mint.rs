//! Makes tokens, and gives the same one again while it lasts, as the real server does.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::sync::Cache;

use super::ISSUER;
use super::identity::Identity;
use super::key::{NoKey, SigningKey};
use super::verifier::{Claims, Verifier};

/// A token with less time left is made anew: the margin of the serverless platforms' metadata server.
const MARGIN: u64 = 240;

/// How much the cache may hold, in bytes of scopes, audiences and tokens.
const CAPACITY: u64 = 16 << 20;

/// An access token is this, then base64url of nonce, expiry and a proof that they are ours.
const PREFIX: &str = "ya29.c.";
const NONCE: usize = 128;

/// The source of all tokens of one emulator.
pub(super) struct Mint {
    identity: Identity,
    subject: String,
    key: SigningKey,
    seal: hmac::Key,
    /// There is one account, under two names; it needs no place in the key.
    issued: Cache<Wanted, Option<Issued>>,
}

/// What a caller asks for; equal wishes share a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// An access token; the scopes sorted and without doubles, none for the account's own.
    Access { scopes: Vec<String> },
    /// An ID token.
    Id { audience: String, full: bool },
}

/// A token, and when it ends (seconds since 1970).
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) token: Arc<str>,
    pub(super) expiry: u64,
}

// === impl Mint ===

impl Mint {
    /// New keys, so that no token of another run is valid here.
    pub(super) fn new(identity: Identity) -> Result<Self, NoKey> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| NoKey)?;
        Ok(Self {
            subject: account_number(identity.email.as_str()),
            identity,
            key: SigningKey::generate()?,
            seal: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            issued: Cache::builder()
                .weigher(|wanted: &Wanted, issued: &Option<Issued>| {
                    let token = issued.as_ref().map_or(0, |issued| issued.token.len());
                    u32::try_from(wanted.size() + token).unwrap_or(u32::MAX)
                })
                .max_capacity(CAPACITY)
                .build(),
        })
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) const fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier::new(self.key.public_key().to_vec(), self.seal.clone())
    }

    /// The token for a wish; `None` where the system has no randomness left.
    pub(super) fn issue(&self, wanted: &Wanted, now: SystemTime) -> Option<Issued> {
        let now = unix(now);
        self.issued
            .entry_by_ref(wanted)
            .or_insert_with_if(
                || self.make(wanted, now),
                |issued| {
                    issued
                        .as_ref()
                        .is_none_or(|issued| issued.left(now) < MARGIN)
                },
            )
            .into_value()
    }

    fn make(&self, wanted: &Wanted, now: u64) -> Option<Issued> {
        let expiry = now + self.identity.lifetime.as_secs();
        let token = match wanted {
            Wanted::Access { .. } => seal(&self.seal, expiry)?,
            Wanted::Id { audience, full } => self.key.sign(&Claims {
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
        Some(Issued {
            token: token.into(),
            expiry,
        })
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

// === impl Wanted ===

impl Wanted {
    /// An access token for scopes in any order, as `a,b` or `a b`.
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

// === impl Issued ===

impl Issued {
    /// The seconds until its end.
    pub(super) fn left(&self, now: u64) -> u64 {
        self.expiry.saturating_sub(now)
    }
}

/// Whole seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The expiry of an access token that was sealed with this key. The token carries its own proof: nothing is kept that
/// callers could fill up, and a token that was replaced stays valid to its end.
pub(super) fn unseal(key: &hmac::Key, token: &str) -> Option<u64> {
    let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
    let (message, proof) = sealed.split_at_checked(NONCE + size_of::<u64>())?;
    hmac::verify(key, message, proof).ok()?;
    let (_, expiry) = message.split_last_chunk()?;
    Some(u64::from_be_bytes(*expiry))
}

fn seal(key: &hmac::Key, expiry: u64) -> Option<String> {
    let mut sealed = vec![0; NONCE];
    rand::fill(&mut sealed).ok()?;
    sealed.extend(expiry.to_be_bytes());
    let proof = hmac::sign(key, &sealed);
    sealed.extend(proof.as_ref());
    Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))
}

/// Accounts have numbers of 21 digits; this one is always the same for the same address.
fn account_number(email: &str) -> String {
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
