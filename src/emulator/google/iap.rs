//! Identity-Aware Proxy: verifies JWTs that a service account signed for the URL of a call.
//!
//! Source: <https://cloud.google.com/iap/docs/authentication-howto>, "Authenticate with a service account JWT".

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use serde::Deserialize;

use super::jwt::Jwt;
use super::oauth::{HOUR, SKEW};
use super::{Google, unix};

/// The claims of a JWT for IAP. It has no others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IapClaims {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    exp: u64,
}

/// The issuer of any JWT.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

// === impl Google ===

impl Google {
    /// Returns the service account that signed a JWT for a URL without its query, such as `https://iap.example/page`.
    ///
    /// # Errors
    ///
    /// Fails with IAP's reason.
    pub fn verify_iap(&self, token: &str, url: &str, now: SystemTime) -> Result<String, String> {
        let refused = |why: String| format!("Invalid IAP credentials: {why}");
        let jwt =
            Jwt::parse(token).map_err(|why| refused(format!("Unable to parse JWT: {why}")))?;
        let claims: IapClaims = jwt
            .claims()
            .map_err(|why| refused(format!("Unable to parse JWT: {why}")))?;
        // IAP finds the key only by its id.
        if jwt.header.kid.is_none() || !self.is_signed_by(&jwt, &claims.iss) {
            return Err(refused("JWT signature is invalid".to_owned()));
        }
        if claims.iss != claims.sub {
            let why = format!(
                "JWT subject {:?} is not its issuer {:?}",
                claims.sub, claims.iss
            );
            return Err(refused(why));
        }
        if !covers(&claims.aud, url) {
            let why = format!(
                "JWT audience doesn't match this application ('aud' claim ({}) doesn't match {url})",
                claims.aud
            );
            return Err(refused(why));
        }
        claims.check_times(unix(now)).map_err(refused)?;
        Ok(claims.iss)
    }
}

/// Returns the JWT in a request that a service account signed for IAP. `Proxy-Authorization` takes precedence.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = |name| {
        let value = headers.get(name)?.to_str().ok()?;
        value.strip_prefix("Bearer ")
    };
    [PROXY_AUTHORIZATION, AUTHORIZATION]
        .into_iter()
        .filter_map(bearer)
        .find(|token| {
            let issuer = Jwt::parse(token).and_then(|jwt| jwt.claims::<Issuer>());
            issuer.is_ok_and(|claims| claims.iss.contains('@'))
        })
}

/// Returns whether an audience is this URL, or a prefix of it that ends with `/*`.
fn covers(audience: &str, url: &str) -> bool {
    match audience.strip_suffix('*') {
        Some(prefix) => prefix.ends_with('/') && url.starts_with(prefix),
        None => audience == url,
    }
}

// === impl IapClaims ===

impl IapClaims {
    fn check_times(&self, now: u64) -> Result<(), String> {
        let Self { iat, exp, .. } = *self;
        let why = if exp <= now {
            format!("JWT has expired ('exp' claim {exp}, now {now})")
        } else if iat > now + SKEW {
            format!("JWT was issued in the future ('iat' claim {iat}, now {now})")
        } else if exp <= iat || exp - iat > HOUR {
            format!("JWT must be valid for at most {HOUR} s ('iat' claim {iat}, 'exp' claim {exp})")
        } else {
            return Ok(());
        };
        Err(why)
    }
}
