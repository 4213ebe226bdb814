//! The Security Token Service: `https://sts.googleapis.com/v1/token` and `/v1/oauthtoken`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error_response::{ErrorResponse, insert};
use super::form::Form;
use super::jwt::Jwt;
use super::oauth::SKEW;
use super::{Google, sigv4_verifier};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";
const AWS4: &str = "urn:ietf:params:aws:token-type:aws4_request";

/// The issuer of the OIDC subject tokens.
pub(super) const IDP: &str = "https://idp.example.com";

/// The accepted SAML assertion: base64url of unsigned XML.
pub(super) const SAML: &str = "PHNhbWwycDpSZXNwb25zZT5lbXVsYXRvcjwvc2FtbDJwOlJlc3BvbnNlPg";

/// The claims of an OIDC subject token.
#[derive(Deserialize)]
struct OidcClaims {
    iss: String,
    aud: String,
    sub: String,
    #[serde(default)]
    iat: u64,
    exp: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeOptions {
    #[serde(default, rename = "userProject")]
    user_project: Option<String>,
}

pub(super) fn exchange(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let form = Form::read(
        request,
        &[
            "grant_type",
            "audience",
            "scope",
            "requested_token_type",
            "subject_token",
            "subject_token_type",
            "options",
        ],
    )?;
    let invalid = |why: String| ErrorResponse::oauth("invalid_request", why);
    let wrong = |name: &str, value: &str| invalid(format!("Invalid value for \"{name}\": {value}"));
    let grant_type = form.required("grant_type")?;
    if grant_type != EXCHANGE {
        return Err(wrong("grant_type", grant_type));
    }
    let requested = form.required("requested_token_type")?;
    if requested != ACCESS_TOKEN {
        return Err(wrong("requested_token_type", requested));
    }
    let audience = form.required("audience")?;
    let (pool, provider) = audience
        .rsplit_once("/providers/")
        .ok_or_else(|| wrong("audience", audience))?;
    let is_workforce = pool == google.directory().workforce_pool();
    if !is_workforce && pool != google.directory().pool() {
        return Err(wrong("audience", audience));
    }
    let is_client = client(google, request)?;
    let options: ExchangeOptions = match form.field("options") {
        None => ExchangeOptions::default(),
        Some(text) => serde_json::from_str(text).map_err(|_| wrong("options", text))?,
    };
    match options.user_project {
        // A workload pool already belongs to a project.
        Some(project) if !is_workforce => return Err(wrong("options", &project)),
        Some(project) if project != google.directory().project_id() => {
            return Err(wrong("options", &project));
        }
        None if is_workforce && !is_client => {
            let why = "a workforce pool needs userProject in options, or a client id and secret";
            return Err(invalid(why.to_owned()));
        }
        _ => {}
    }
    let scopes: Vec<String> = form
        .required("scope")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let token = form.required("subject_token")?;
    let subject = match (form.required("subject_token_type")?, provider) {
        (AWS4, "aws") => sigv4_verifier::verify(token, audience, google.aws(), now)
            .map_err(|why| ErrorResponse::oauth("invalid_grant", why))?,
        (JWT | ID_TOKEN, "oidc") => oidc(google, token, audience, now)?,
        (SAML2, "saml") if token == SAML => "saml-user".to_owned(),
        (SAML2, "saml") => return Err(wrong("subject_token", "not a SAML assertion")),
        (other, _) => return Err(wrong("subject_token_type", other)),
    };
    let member = format!(
        "{}/subject/{subject}",
        pool.replacen("//", "principal://", 1)
    );
    let (lifetime, expires_in) = google.lifetime();
    Ok(json!({
        "access_token": google.access_token(&member, scopes, now + lifetime)?,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": expires_in,
    }))
}

/// Returns the subject of an OIDC token.
fn oidc(google: &Google, token: &str, audience: &str, now: u64) -> Result<String, ErrorResponse> {
    let invalid = |why: String| ErrorResponse::oauth("invalid_grant", why);
    let jwt = Jwt::parse(token)
        .map_err(|why| invalid(format!("The given credential is not a JWT: {why}")))?;
    let claims: OidcClaims = jwt.claims().map_err(invalid)?;
    if claims.iss != IDP {
        return Err(invalid(format!(
            "The issuer in ID Token {} does not match the expected ones.",
            claims.iss
        )));
    }
    if !google.is_of_idp(&jwt) {
        let why = "The given credential is rejected by the attribute condition: invalid signature.";
        return Err(invalid(why.to_owned()));
    }
    if claims.aud != format!("https:{audience}") {
        return Err(invalid(format!(
            "The audience in ID Token [{}] does not match the expected audience.",
            claims.aud
        )));
    }
    if claims.exp <= now || claims.iat > now + SKEW {
        return Err(invalid(format!(
            "ID Token issued at {} is stale to sign-in.",
            claims.iat
        )));
    }
    Ok(claims.sub)
}

/// Returns whether the request authenticates the OAuth client of the workforce user (RFC 6749, 2.3.1).
fn client(google: &Google, request: &Request<Bytes>) -> Result<bool, ErrorResponse> {
    let Some(value) = request.headers().get(AUTHORIZATION) else {
        return Ok(false);
    };
    let users = google.users();
    let (id, secret) = (&users.workforce.client_id, &users.workforce.client_secret);
    let expected = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    if value.as_bytes() == expected.as_bytes() {
        return Ok(true);
    }
    Err(ErrorResponse::oauth_with(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "The OAuth client was not found.",
    ))
}

pub(super) fn refresh(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let form = Form::read(request, &["grant_type", "refresh_token", "scope"])?;
    let grant_type = form.required("grant_type")?;
    if grant_type != "refresh_token" {
        return Err(ErrorResponse::oauth(
            "unsupported_grant_type",
            format!("Invalid grant_type: {grant_type}"),
        ));
    }
    let refresh_token = form.required("refresh_token")?;
    if !client(google, request)? {
        return Err(ErrorResponse::oauth_with(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "Client authentication is required.",
        ));
    }
    let member = format!(
        "{}/subject/workforce-user",
        google
            .directory()
            .workforce_pool()
            .replacen("//", "principal://", 1)
    );
    let mut users = google.users();
    let user = &mut users.workforce;
    if user.refresh_token != refresh_token {
        let why = "Token has been expired or revoked.";
        return Err(ErrorResponse::oauth("invalid_grant", why));
    }
    let scopes = match form.field("scope") {
        None => user.scopes.clone(),
        Some(scope) => scope.split_whitespace().map(str::to_owned).collect(),
    };
    let (lifetime, expires_in) = google.lifetime();
    let mut answer = json!({
        "access_token": google.access_token(&member, scopes, now + lifetime)?,
        "token_type": "Bearer",
        "expires_in": expires_in,
    });
    if let Some(rotated) = user.rotate()? {
        insert(&mut answer, "refresh_token", rotated);
    }
    Ok(answer)
}
