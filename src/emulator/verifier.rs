//! Verifies the emulator's tokens.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::identity::ISSUER;
use super::mint::unix;
use super::signer::{self, AccessTokenInfo};

/// Verifies tokens like a service that is called with them. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Keys>);

struct Keys {
    id_tokens: Vec<u8>,
    access_tokens: hmac::Key,
}

/// The claims of an ID token (OpenID Connect Core 1.0, section 2). Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdTokenClaims {
    /// The audience.
    pub(crate) aud: String,
    /// The account's number.
    pub(crate) azp: String,
    /// The account's address. Only with `format=full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Always true. Only with `format=full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) email_verified: Option<bool>,
    /// The expiry.
    pub(crate) exp: u64,
    /// The time of issue.
    pub(crate) iat: u64,
    /// [`ISSUER`].
    pub(crate) iss: String,
    /// The account's number.
    pub(crate) sub: String,
}

/// The reason that an ID token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token does not have three parts of base64url, or has no claims.
    #[error("not an ID token")]
    Malformed,
    /// The signature is of another key or another text.
    #[error("the signature is not valid")]
    Signature,
    /// The issuer is another one.
    #[error("the issuer is not {ISSUER}")]
    Issuer,
    /// The token has this other audience.
    #[error("the token is for the audience {0:?}")]
    Audience(String),
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
}

// === impl Verifier ===

impl Verifier {
    pub(super) fn new(id_tokens: Vec<u8>, access_tokens: hmac::Key) -> Self {
        Self(Arc::new(Keys {
            id_tokens,
            access_tokens,
        }))
    }

    /// Returns the claims of an ID token that this emulator issued for `audience`, if it is valid at `now`.
    ///
    /// # Errors
    /// Fails with the first reason that applies, in the order of [`Refused`].
    pub fn verify(
        &self,
        jwt: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<IdTokenClaims, Refused> {
        let (message, signature) = jwt.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
        let payload = decoded(payload)?;
        let signature = decoded(signature)?;
        // There is one key and one algorithm. The header does not select them.
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0.id_tokens)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| Refused::Signature)?;
        let claims: IdTokenClaims =
            serde_json::from_slice(&payload).map_err(|_| Refused::Malformed)?;
        if claims.iss != ISSUER {
            Err(Refused::Issuer)
        } else if claims.aud != audience {
            Err(Refused::Audience(claims.aud))
        } else if unix(now) >= claims.exp {
            Err(Refused::Expired)
        } else {
            Ok(claims)
        }
    }

    /// Returns whether this emulator issued the access token and it is valid at `now`.
    pub fn knows_access_token(&self, token: &str, now: SystemTime) -> bool {
        self.access(token, now).is_some()
    }

    /// Returns what an access token of this emulator proves. Returns `None` if it is foreign or expired.
    pub fn access(&self, token: &str, now: SystemTime) -> Option<AccessTokenInfo> {
        signer::open(&self.0.access_tokens, token).filter(|access| unix(now) < access.expiry)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Malformed)
}
