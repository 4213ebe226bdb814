//! The token endpoint of OAuth 2: `https://oauth2.googleapis.com/token`.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Google;
use super::directory::{DELEGATED_SCOPES, DOMAIN};
use super::error_response::{ErrorResponse, insert};
use super::form::Form;
use super::jwt::Jwt;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The only accepted audience of an assertion, independent of a file's `token_uri`.
pub(super) const AUDIENCE: &str = "https://oauth2.googleapis.com/token";

/// The number of seconds that a client's clock may be ahead.
pub(super) const SKEW: u64 = 300;

/// The maximum lifetime of an assertion and of a token, in seconds.
pub(super) const HOUR: u64 = 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assertion {
    iss: String,
    #[serde(default)]
    sub: Option<String>,
    aud: String,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    target_audience: Option<String>,
    iat: u64,
    exp: u64,
}

pub(super) fn token(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let fields = [
        "grant_type",
        "assertion",
        "client_id",
        "client_secret",
        "refresh_token",
        "scope",
    ];
    let form = Form::read(request, &fields)?;
    match form.required("grant_type")? {
        JWT_BEARER => {
            let form = Form::read(request, &["grant_type", "assertion"])?;
            jwt_bearer(google, form.required("assertion")?, now)
        }
        "refresh_token" => {
            let fields: Vec<&str> = fields.into_iter().filter(|f| *f != "assertion").collect();
            refresh(google, &Form::read(request, &fields)?, now)
        }
        other => Err(ErrorResponse::oauth(
            "unsupported_grant_type",
            format!("Invalid grant_type: {other}"),
        )),
    }
}

fn jwt_bearer(google: &Google, assertion: &str, now: u64) -> Result<Value, ErrorResponse> {
    let invalid =
        |why: String| ErrorResponse::oauth("invalid_grant", format!("Invalid JWT: {why}"));
    let jwt = Jwt::parse(assertion).map_err(invalid)?;
    let claims: Assertion = jwt.claims().map_err(invalid)?;
    if !google.directory().has_account(&claims.iss) {
        let why = "Invalid grant: account not found";
        return Err(ErrorResponse::oauth("invalid_grant", why));
    }
    if !google.is_signed_by(&jwt, &claims.iss) {
        return Err(ErrorResponse::oauth(
            "invalid_grant",
            "Invalid JWT Signature.",
        ));
    }
    if claims.aud != AUDIENCE {
        return Err(invalid(format!(
            "Failed audience check. The right audience is {AUDIENCE}, not {}.",
            claims.aud
        )));
    }
    check_times(claims.iat, claims.exp, now).map_err(|why| invalid(why.to_owned()))?;
    let (lifetime, expires_in) = google.lifetime();
    let requested = (claims.scope.as_deref(), claims.target_audience.as_deref());
    match requested {
        (Some(scope), None) if !scope.trim().is_empty() => {
            let scopes: Vec<String> = scope.split_whitespace().map(str::to_owned).collect();
            let member = match &claims.sub {
                None => format!("serviceAccount:{}", claims.iss),
                Some(user) => delegated(user, &scopes)?,
            };
            Ok(json!({
                "access_token": google.access_token(&member, scopes, now + lifetime)?,
                "expires_in": expires_in,
                "token_type": "Bearer",
            }))
        }
        (None, Some(audience)) if !audience.is_empty() && claims.sub.is_none() => Ok(json!({
            "id_token": google.id_token(&claims.iss, audience, true, now)?,
        })),
        _ => Err(ErrorResponse::oauth(
            "invalid_scope",
            "Invalid OAuth scope or ID token audience provided.",
        )),
    }
}

/// Returns the user that an account acts as by domain-wide delegation.
fn delegated(user: &str, scopes: &[String]) -> Result<String, ErrorResponse> {
    let of_domain = user
        .rsplit_once('@')
        .is_some_and(|(_, domain)| domain == DOMAIN);
    let allowed = scopes
        .iter()
        .all(|scope| DELEGATED_SCOPES.contains(&scope.as_str()));
    if of_domain && allowed {
        return Ok(format!("user:{user}"));
    }
    Err(ErrorResponse::oauth_with(
        StatusCode::UNAUTHORIZED,
        "unauthorized_client",
        "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes \
         requested.",
    ))
}

/// Checks the times of a JWT that a client signed.
pub(super) fn check_times(iat: u64, exp: u64, now: u64) -> Result<(), &'static str> {
    let reasonable = iat <= now + SKEW && exp > now && exp > iat && exp - iat <= HOUR;
    if reasonable {
        return Ok(());
    }
    Err(
        "Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the \
         JWT claim.",
    )
}

fn refresh(google: &Google, form: &Form, now: u64) -> Result<Value, ErrorResponse> {
    let client_id = form.required("client_id")?;
    let secret = form.required("client_secret")?;
    let refresh_token = form.required("refresh_token")?;
    let mut users = google.users();
    let user = &mut users.user;
    let invalid_client =
        |why| ErrorResponse::oauth_with(StatusCode::UNAUTHORIZED, "invalid_client", why);
    if user.client_id != client_id {
        return Err(invalid_client("The OAuth client was not found."));
    }
    if user.client_secret != secret {
        return Err(invalid_client("Unauthorized"));
    }
    if user.refresh_token != refresh_token {
        let why = "Token has been expired or revoked.";
        return Err(ErrorResponse::oauth("invalid_grant", why));
    }
    let scopes = match form.field("scope") {
        None => user.scopes.clone(),
        Some(scope) => scope.split_whitespace().map(str::to_owned).collect(),
    };
    let is_granted = |scope: &String| user.scopes.contains(scope) || user.covers(scope);
    if scopes.is_empty() || !scopes.iter().all(is_granted) {
        let why = "Some requested scopes were invalid.";
        return Err(ErrorResponse::oauth("invalid_scope", why));
    }
    let member = format!("user:{}", user.email);
    let (lifetime, expires_in) = google.lifetime();
    let mut answer = json!({
        "access_token": google.access_token(&member, scopes.clone(), now + lifetime)?,
        "expires_in": expires_in,
        "scope": scopes.join(" "),
        "token_type": "Bearer",
        "id_token": google.user_id_token(&user.email, client_id, now)?,
    });
    if let Some(rotated) = user.rotate()? {
        insert(&mut answer, "refresh_token", rotated);
    }
    Ok(answer)
}
