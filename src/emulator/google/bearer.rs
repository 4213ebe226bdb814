//! Verifies bearer tokens of requests, and signatures of JWTs.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::{Value, json};

use super::directory::GCLOUD_CLIENT;
use super::error_response::ErrorResponse;
use super::jwt::Jwt;
use super::oauth::check_times;
use super::{CLOUD_PLATFORM, Google, host, iap};
use crate::emulator::AccessTokenInfo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelfSigned {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    iat: u64,
    exp: u64,
}

// === impl Google ===

impl Google {
    /// Returns what the bearer token of a request proves. The emulator issued it, or an account signed it.
    pub(super) fn bearer(&self, request: &Request<Bytes>, now: u64) -> Option<AccessTokenInfo> {
        let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ")?;
        let access = self
            .signer
            .open(token)
            .or_else(|| self.self_signed(token, host(request), now))?;
        (now < access.expiry).then_some(access)
    }

    fn self_signed(&self, token: &str, host: &str, now: u64) -> Option<AccessTokenInfo> {
        let jwt = Jwt::parse(token).ok()?;
        let claims: SelfSigned = jwt.claims().ok()?;
        // Google finds the key only by its id.
        jwt.header.kid.as_ref()?;
        let is_valid = claims.iss == claims.sub
            && self.is_signed_by(&jwt, &claims.iss)
            && check_times(claims.iat, claims.exp, now).is_ok();
        let scopes = match (claims.scope, claims.aud) {
            (Some(scope), None) => scope.split_whitespace().map(str::to_owned).collect(),
            (None, Some(aud)) if is_google_api(host) && aud == format!("https://{host}/") => {
                vec![CLOUD_PLATFORM.to_owned()]
            }
            _ => return None,
        };
        is_valid.then_some(AccessTokenInfo {
            member: format!("serviceAccount:{}", claims.iss),
            scopes,
            expiry: claims.exp,
        })
    }

    /// Returns whether a key of this account signed the JWT. Without a key id, each key is tried.
    pub(super) fn is_signed_by(&self, jwt: &Jwt<'_>, account: &str) -> bool {
        let of_account = (account == self.directory().main()).then_some(&self.account_key);
        of_account
            .into_iter()
            .chain([&self.system_key])
            .filter(|key| jwt.header.kid.as_deref().is_none_or(|kid| kid == key.id()))
            .any(|key| jwt.is_signed_by(key.public_key()))
            && self.directory().has_account(account)
    }

    pub(super) fn is_of_idp(&self, jwt: &Jwt<'_>) -> bool {
        jwt.header.kid.as_deref() == Some(self.idp_key.id())
            && jwt.is_signed_by(self.idp_key.public_key())
    }

    /// Answers as a service that is called with an access token, or with an ID token for `https://HOST`. Cloud Run and
    /// Cloud Functions also accept ID tokens of gcloud's login. A host that is not a Google API also answers as a
    /// service behind Identity-Aware Proxy.
    pub(super) fn api(&self, request: &Request<Bytes>, now: u64) -> Result<Value, ErrorResponse> {
        let host = host(request);
        if let Some(access) = self.bearer(request, now) {
            return Ok(json!({
                "host": host, "member": access.member, "scopes": access.scopes,
            }));
        }
        let headers = request.headers();
        let time = UNIX_EPOCH + Duration::from_secs(now);
        let jwt = iap::token(headers).filter(|_| !is_google_api(host));
        if let Some(jwt) = jwt {
            let url = format!("https://{host}{}", request.uri().path());
            let email = self.verify_iap(jwt, &url, time);
            let email = email.map_err(|why| ErrorResponse::iap(&why))?;
            return Ok(json!({"host": host, "iap": {"email": email}}));
        }
        let token = headers
            .get("x-serverless-authorization")
            .or_else(|| headers.get(AUTHORIZATION))
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let takes_gcloud = host.ends_with(".run.app") || host.ends_with(".cloudfunctions.net");
        let audiences = [
            Some(format!("https://{host}")),
            takes_gcloud.then(|| GCLOUD_CLIENT.to_owned()),
        ];
        let verify = |token| {
            let mut audiences = audiences.iter().flatten();
            audiences.find_map(|audience| self.verifier().verify(token, audience, time).ok())
        };
        token
            .and_then(verify)
            .map(|claims| json!({"host": host, "id_token": claims}))
            .ok_or_else(ErrorResponse::unauthenticated)
    }
}

/// Returns whether a host is a Google API of the default universe. IAP guards none of them.
fn is_google_api(host: &str) -> bool {
    host.ends_with(".googleapis.com")
}
