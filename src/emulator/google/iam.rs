//! IAM Credentials: `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/EMAIL:METHOD`.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::directory::Permission;
use super::error_response::ErrorResponse;
use super::form;
use super::oauth::HOUR;
use super::{CLOUD_PLATFORM, Endpoint, Google, IAM_SCOPE};

const ACCOUNTS: &str = "projects/-/serviceAccounts/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessTokenRequest {
    /// Optional, because null is the default of every JSON field of a Google API, and Python's library sends it.
    #[serde(default)]
    delegates: Option<Vec<String>>,
    scope: Vec<String>,
    #[serde(default)]
    lifetime: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IdTokenRequest {
    #[serde(default)]
    delegates: Option<Vec<String>>,
    audience: String,
    #[serde(default)]
    include_email: bool,
    #[serde(default)]
    use_email_azp: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignJwtRequest {
    #[serde(default)]
    delegates: Option<Vec<String>>,
    payload: String,
}

pub(super) fn call(
    google: &Google,
    endpoint: Endpoint,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Value, ErrorResponse> {
    if request.method() != Method::POST || request.uri().query().is_some() {
        return Err(ErrorResponse::not_found());
    }
    let path = request.uri().path();
    let account = path
        .strip_prefix("/v1/")
        .and_then(|path| path.strip_prefix(ACCOUNTS)?.rsplit_once(':'))
        .and_then(|(account, _)| percent_decode_str(account).decode_utf8().ok())
        .ok_or_else(ErrorResponse::not_found)?;
    match endpoint {
        Endpoint::GenerateAccessToken => access_token(google, request, &account, now),
        Endpoint::GenerateIdToken => id_token(google, request, &account, now),
        _ => sign_jwt(google, request, &account, now),
    }
}

fn access_token(
    google: &Google,
    request: &Request<Bytes>,
    account: &str,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let permission = Permission::GetAccessToken;
    let caller = authenticate(google, request, now)?;
    let body: AccessTokenRequest = form::json(request)?;
    authorize(
        google,
        &caller,
        body.delegates.as_deref(),
        account,
        permission,
    )?;
    if body.scope.is_empty() || body.scope.iter().any(|scope| scope.contains(' ')) {
        let why = "Scope required, one in each element.";
        return Err(ErrorResponse::invalid_argument(why));
    }
    let seconds = match &body.lifetime {
        None => HOUR,
        Some(text) => text
            .strip_suffix('s')
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds| (1..=HOUR).contains(seconds))
            .ok_or_else(|| {
                ErrorResponse::invalid_argument(format!(
                    "The lifetime {text:?} is not between 1s and 3600s."
                ))
            })?,
    };
    let (lifetime, _) = google.lifetime();
    let expiry = now + seconds.min(lifetime);
    let member = format!("serviceAccount:{account}");
    let expires = UNIX_EPOCH + Duration::from_secs(expiry);
    Ok(json!({
        "accessToken": google.access_token(&member, body.scope, expiry)?,
        "expireTime": humantime::format_rfc3339_seconds(expires).to_string(),
    }))
}

fn id_token(
    google: &Google,
    request: &Request<Bytes>,
    account: &str,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let permission = Permission::GetOpenIdToken;
    let caller = authenticate(google, request, now)?;
    let body: IdTokenRequest = form::json(request)?;
    authorize(
        google,
        &caller,
        body.delegates.as_deref(),
        account,
        permission,
    )?;
    if body.audience.is_empty() {
        return Err(ErrorResponse::invalid_argument("Audience required."));
    }
    let mut claims = google.id_claims(account, &body.audience, body.include_email, now);
    if body.use_email_azp {
        claims.azp = account.to_owned();
    }
    Ok(json!({"token": google.sign_id_token(&claims)?}))
}

fn sign_jwt(
    google: &Google,
    request: &Request<Bytes>,
    account: &str,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let permission = Permission::SignJwt;
    let caller = authenticate(google, request, now)?;
    let body: SignJwtRequest = form::json(request)?;
    authorize(
        google,
        &caller,
        body.delegates.as_deref(),
        account,
        permission,
    )?;
    let claims: Map<String, Value> = serde_json::from_str(&body.payload)
        .map_err(|_| ErrorResponse::invalid_argument("The payload is not a JSON object."))?;
    let expiry = claims.get("exp").and_then(Value::as_u64);
    if expiry.is_some_and(|expiry| expiry <= now || expiry > now + 12 * HOUR) {
        let why = "The exp claim must be in the future, and within 12 hours.";
        return Err(ErrorResponse::invalid_argument(why));
    }
    let key = google.system_key();
    Ok(json!({
        "keyId": key.id(),
        "signedJwt": key.sign(&claims).ok_or_else(ErrorResponse::internal)?,
    }))
}

/// Returns the member that calls.
fn authenticate(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<String, ErrorResponse> {
    let access = google
        .bearer(request, now)
        .ok_or_else(ErrorResponse::unauthenticated)?;
    let has_scope = [CLOUD_PLATFORM, IAM_SCOPE]
        .iter()
        .any(|wanted| access.scopes.iter().any(|scope| scope == wanted));
    if has_scope {
        Ok(access.member)
    } else {
        Err(ErrorResponse::scopes("iamcredentials.googleapis.com"))
    }
}

/// Checks that each account of the chain may act as the next one, and the last one as the target.
fn authorize(
    google: &Google,
    caller: &str,
    delegates: Option<&[String]>,
    target: &str,
    permission: Permission,
) -> Result<(), ErrorResponse> {
    let directory = google.directory();
    let mut member = caller.to_owned();
    for delegate in delegates.unwrap_or_default() {
        let account = delegate
            .strip_prefix(ACCOUNTS)
            .filter(|account| account.contains('@'))
            .ok_or_else(|| {
                ErrorResponse::invalid_argument(format!(
                    "Invalid delegate {delegate:?}: {ACCOUNTS}EMAIL"
                ))
            })?;
        if !directory.permits(&member, account, Permission::ImplicitDelegation) {
            return Err(ErrorResponse::permission(
                Permission::ImplicitDelegation.name(),
            ));
        }
        member = format!("serviceAccount:{account}");
    }
    if directory.permits(&member, target, permission) {
        Ok(())
    } else {
        Err(ErrorResponse::permission(permission.name()))
    }
}
