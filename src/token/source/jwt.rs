//! JSON Web Tokens that a service account's own key signs (RFC 7515, 3.1; RFC 7518, 3.3).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

pub(super) use crate::credentials::SigningKey;

/// Signs claims with `RS256`. The header names the key by `kid`, if the account has one.
///
/// Returns `None` if the claims are not JSON, or if the random number generator fails.
pub(super) fn sign(key: &SigningKey, kid: Option<&str>, claims: &impl Serialize) -> Option<String> {
    #[derive(Serialize)]
    struct JwsHeader<'a> {
        alg: &'a str,
        typ: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        kid: Option<&'a str>,
    }

    let header = JwsHeader {
        alg: "RS256",
        typ: "JWT",
        kid,
    };
    let message = format!("{}.{}", part(&header)?, part(claims)?);
    let signature = key.sign(message.as_bytes())?;
    Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn part(value: &impl Serialize) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).ok()?))
}

#[cfg(test)]
mod tests;
