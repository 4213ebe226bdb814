//! Tells the emulator's tokens from all others.

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
use super::signer::{self, Access};

/// Checks tokens as a service does that is called with them. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Keys>);

struct Keys {
    id_tokens: Vec<u8>,
    access_tokens: hmac::Key,
}

/// What an ID token says (OpenID Connect Core 1.0, section 2). Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom the token is.
    pub aud: String,
    /// The account's number again.
    pub azp: String,
    /// The account's address; only with `format=full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Always true; only with `format=full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
    /// When it ends.
    pub exp: u64,
    /// When it was made.
    pub iat: u64,
    /// [`ISSUER`].
    pub iss: String,
    /// The account's number.
    pub sub: String,
}

/// Why an ID token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not three parts of base64url, or no claims in it.
    #[error("not an ID token")]
    Malformed,
    /// Another key, or another text, was signed.
    #[error("the signature is not valid")]
    Signature,
    /// The issuer is another one.
    #[error("the issuer is not {ISSUER}")]
    Issuer,
    /// The token is for someone else; whom it names.
    #[error("the token is for the audience {0:?}")]
    Audience(String),
    /// The token's time is over.
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

    /// The claims of an ID token that this emulator made for `audience` and that is valid at `now`.
    ///
    /// # Errors
    /// The first reason, in the order of [`Refused`], that speaks against it.
    pub fn verify(&self, jwt: &str, audience: &str, now: SystemTime) -> Result<Claims, Refused> {
        let (message, signature) = jwt.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
        let payload = decoded(payload)?;
        let signature = decoded(signature)?;
        // One key and one algorithm: what the header claims decides nothing.
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0.id_tokens)
            .verify(message.as_bytes(), &signature)
            .map_err(|_| Refused::Signature)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Refused::Malformed)?;
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

    /// Whether this emulator made that access token, and it is valid at `now`.
    pub fn knows_access_token(&self, token: &str, now: SystemTime) -> bool {
        self.access(token, now).is_some()
    }

    /// Returns what an access token of this emulator proves, or `None` if it is another's or expired.
    pub fn access(&self, token: &str, now: SystemTime) -> Option<Access> {
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
