//! JWTs that clients sign (RFC 7515, RFC 7519).

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A JWT whose signature was not verified yet.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    message: &'a str,
    pub(super) header: JwtHeader,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtHeader {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) typ: Option<String>,
    #[serde(default)]
    pub(super) kid: Option<String>,
}

// === impl Jwt ===

impl<'a> Jwt<'a> {
    /// Parses the compact form. The header must name RS256.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let malformed = || "it does not have three parts of base64url".to_owned();
        let (message, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header: JwtHeader = serde_json::from_slice(&decode(header)?)
            .map_err(|error| format!("its header is wrong: {error}"))?;
        if header.alg != "RS256" {
            return Err(format!("its algorithm is {:?}, not RS256", header.alg));
        }
        if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
            return Err(format!("its type is {:?}, not JWT", header.typ));
        }
        Ok(Self {
            message,
            header,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// Returns whether this RSA key (`RSAPublicKey` DER) signed the JWT.
    pub(super) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
            .verify(self.message.as_bytes(), &self.signature)
            .is_ok()
    }

    /// Returns the claims.
    pub(super) fn claims<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.payload).map_err(|error| error.to_string())
    }
}
