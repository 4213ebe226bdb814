//! Signs ID tokens and seals access tokens. All endpoints of one emulator share it, so each accepts the tokens of the
//! others.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::key::{GeneratedKey, NoKey};
use super::verifier::{IdTokenClaims, Verifier};

/// The prefix of an access token. Base64url follows: a nonce, the expiry, the grant as JSON, and an HMAC of them.
pub(super) const PREFIX: &str = "ya29.c.";
pub(super) const NONCE: usize = 128;
const PROOF: usize = 32;

/// The keys of an emulator.
pub(super) struct TokenSigner {
    key: GeneratedKey,
    seal: hmac::Key,
}

/// What an access token proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenInfo {
    /// The IAM member of the token, such as `serviceAccount:app@p.iam.gserviceaccount.com`.
    pub member: String,
    /// Its scopes, in the order in which they were requested.
    pub scopes: Vec<String>,
    /// The expiry in seconds since 1970.
    #[serde(skip)]
    pub(crate) expiry: u64,
}

// === impl TokenSigner ===

impl TokenSigner {
    /// Generates keys, so that tokens of another run are invalid here.
    pub(super) fn new() -> Result<Self, NoKey> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| NoKey)?;
        Ok(Self {
            key: GeneratedKey::generate()?,
            seal: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    pub(super) const fn key(&self) -> &GeneratedKey {
        &self.key
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier::new(self.key.public_key().to_vec(), self.seal.clone())
    }

    pub(super) fn id_token(&self, claims: &IdTokenClaims) -> Option<String> {
        self.key.sign(claims)
    }

    /// Returns an access token. The token contains its proof, so the emulator stores nothing that callers could fill
    /// up. A replaced token stays valid until it expires.
    pub(super) fn access_token(&self, access: &AccessTokenInfo) -> Option<String> {
        let mut sealed = vec![0; NONCE];
        rand::fill(&mut sealed).ok()?;
        sealed.extend(access.expiry.to_be_bytes());
        sealed.extend(serde_json::to_vec(access).ok()?);
        let proof = hmac::sign(&self.seal, &sealed);
        sealed.extend(proof.as_ref());
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Returns what an access token of this emulator proves, even if it has expired.
    pub(super) fn open(&self, token: &str) -> Option<AccessTokenInfo> {
        open(&self.seal, token)
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner").finish_non_exhaustive()
    }
}

/// Returns what an access token that was sealed with this key proves, even if it has expired.
pub(super) fn open(seal: &hmac::Key, token: &str) -> Option<AccessTokenInfo> {
    let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
    let (message, proof) = sealed.split_at_checked(sealed.len().checked_sub(PROOF)?)?;
    hmac::verify(seal, message, proof).ok()?;
    let (expiry, access) = message.get(NONCE..)?.split_first_chunk()?;
    Some(AccessTokenInfo {
        expiry: u64::from_be_bytes(*expiry),
        ..serde_json::from_slice(access).ok()?
    })
}
