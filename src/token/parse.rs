//! Parses token responses. Errors do not quote the response, because it may contain a token.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

use super::clock::{Deadline, Now};
use super::rfc3339;
use super::value::{Freshness, Token};

/// The longest lifetime that is accepted. Google's tokens live one hour, and up to twelve by policy.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);

/// Base64url for JWTs. They have no padding (RFC 7515, 2), but some servers other than Google's add it.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a response of status 200 was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the response is not a JSON object with an access token")]
    NotAccessTokenObject,
    #[error("the response has no access token")]
    NoToken,
    #[error("the token is not visible ASCII")]
    NotVisible,
    #[error("expires_in is missing or is not a positive number")]
    ExpiresIn,
    #[error("expireTime is missing or is not a time in RFC 3339")]
    ExpireTime,
    #[error("the response is not a JSON object with a JWT")]
    NotJwtObject,
    #[error("token_type is not Bearer")]
    TokenType,
    #[error("the response is empty")]
    Empty,
    #[error("the response is not a JWT of three parts in base64url")]
    NotJwt,
    #[error("the JWT's header is not a JSON object with an alg")]
    Header,
    #[error("the JWT is not signed (its alg is \"none\")")]
    Unsigned,
    #[error("the JWT's payload is not a JSON object with a numeric exp")]
    Exp,
    #[error("the JWT has no aud")]
    NoAudience,
    #[error("the JWT's aud differs from the requested audience")]
    Audience,
    #[error("the token is already expired (is this machine's clock correct?)")]
    Expired,
    #[error("the response is not a JSON object with an ID token")]
    NoIdToken,
}

/// Parses `{"access_token", "expires_in", "token_type"}`. The token's `expires_in` seconds count from the start of the
/// attempt, because the instance may have been suspended since the server sent the response.
pub(super) fn access_token(body: &[u8], start: Now, now: Now) -> Result<Token, Malformed> {
    #[derive(Deserialize)]
    struct AccessTokenResponse {
        access_token: Option<String>,
        expires_in: Option<Value>,
        token_type: Option<String>,
    }

    let answer: AccessTokenResponse = object(body).ok_or(Malformed::NotAccessTokenObject)?;
    if !answer
        .token_type
        .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(Malformed::TokenType);
    }
    let value = answer
        .access_token
        .filter(|value| !value.is_empty())
        .ok_or(Malformed::NoToken)?;
    let life = answer
        .expires_in
        .and_then(seconds)
        .ok_or(Malformed::ExpiresIn)?;
    token(&value, start.after(life), now)
}

/// Parses the response of `generateAccessToken`: `{"accessToken", "expireTime"}`. The token expires at that time by the
/// wall clock, and at most `lifetime` after the start of the attempt, because this machine's clock may be behind.
pub(super) fn iam_access_token(
    body: &[u8],
    lifetime: Duration,
    start: Now,
    now: Now,
) -> Result<Token, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct IamAccessTokenResponse {
        access_token: Option<String>,
        expire_time: Option<String>,
    }

    let answer: IamAccessTokenResponse = object(body).ok_or(Malformed::NotAccessTokenObject)?;
    let value = answer
        .access_token
        .filter(|value| !value.is_empty())
        .ok_or(Malformed::NoToken)?;
    let expires = answer
        .expire_time
        .and_then(|text| rfc3339::parse(&text))
        .ok_or(Malformed::ExpireTime)?;
    let since_epoch = start.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let life = expires
        .checked_sub(since_epoch)
        .ok_or(Malformed::Expired)?
        .min(lifetime)
        .min(LONGEST);
    token(&value, start.after(life), now)
}

/// Parses the response of `generateIdToken`: `{"token"}`.
pub(super) fn iam_id_token(
    body: &[u8],
    audience: &str,
    start: Now,
    now: Now,
) -> Result<Token, Malformed> {
    #[derive(Deserialize)]
    struct IamIdTokenResponse {
        token: Option<String>,
    }

    let answer: IamIdTokenResponse = object(body).ok_or(Malformed::NotJwtObject)?;
    let jwt = answer.token.ok_or(Malformed::NotJwtObject)?;
    id_token(jwt.as_bytes(), audience, start, now)
}

/// Parses the response of `signJwt`: `{"keyId", "signedJwt"}`.
pub(super) fn signed_jwt(body: &[u8]) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SignedJwtResponse {
        signed_jwt: Option<String>,
    }

    let answer: SignedJwtResponse = object(body).ok_or(Malformed::NotJwtObject)?;
    let jwt = answer.signed_jwt.ok_or(Malformed::NotJwtObject)?;
    let parts = jwt.split('.').filter(|part| is_base64url(part)).count();
    (parts == 3 && jwt.split('.').count() == 3)
        .then_some(jwt)
        .ok_or(Malformed::NotJwt)
}

/// Parses a JWT (RFC 7519). The token expires at `exp`.
///
/// The receiver verifies the signature. `aud` and `alg` are checked here, because a token for another audience, once
/// sent, could be replayed against that audience.
pub(super) fn id_token(
    body: &[u8],
    audience: &str,
    start: Now,
    now: Now,
) -> Result<Token, Malformed> {
    #[derive(Deserialize)]
    struct AlgHeader {
        alg: String,
    }
    #[derive(Deserialize)]
    struct CheckedClaims {
        aud: Option<Value>,
        exp: Number,
        iat: Option<Number>,
    }

    let value = str::from_utf8(body.trim_ascii()).map_err(|_| Malformed::NotVisible)?;
    if value.is_empty() {
        return Err(Malformed::Empty);
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Malformed::NotVisible);
    }
    let mut parts = value.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::NotJwt);
    };
    if ![header, payload, signature].into_iter().all(is_base64url) {
        return Err(Malformed::NotJwt);
    }
    let header = BASE64URL.decode(header).map_err(|_| Malformed::NotJwt)?;
    let payload = BASE64URL.decode(payload).map_err(|_| Malformed::NotJwt)?;
    let header: AlgHeader = object(&header).ok_or(Malformed::Header)?;
    if header.alg.trim().is_empty() {
        return Err(Malformed::Header);
    }
    if header.alg.trim().eq_ignore_ascii_case("none") {
        return Err(Malformed::Unsigned);
    }
    let claims: CheckedClaims = object(&payload).ok_or(Malformed::Exp)?;
    let exp = instant(&claims.exp).ok_or(Malformed::Exp)?;
    match claims.aud {
        None => return Err(Malformed::NoAudience),
        Some(aud) if !is_only(&aud, audience) => return Err(Malformed::Audience),
        Some(_) => {}
    }
    let since_epoch = start.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut life = exp
        .checked_sub(since_epoch)
        .ok_or(Malformed::Expired)?
        .min(LONGEST);
    // If this machine's clock is behind, `exp` alone would allow more than the token's lifetime.
    if let Some(issued_for) = claims
        .iat
        .and_then(|iat| exp.checked_sub(instant(&iat)?))
        .filter(|issued_for| !issued_for.is_zero())
    {
        life = life.min(issued_for);
    }
    token(value, start.after(life), now)
}

/// Parses a JWT in a field of a JSON object: `id_token` of an OAuth endpoint, `token` of the IAM Credentials API.
pub(super) fn id_token_in(
    field: &str,
    body: &[u8],
    audience: &str,
    start: Now,
    now: Now,
) -> Result<Token, Malformed> {
    let answer: Map<String, Value> = object(body).ok_or(Malformed::NoIdToken)?;
    let jwt = answer.get(field).and_then(Value::as_str);
    let jwt = jwt.ok_or(Malformed::NoIdToken)?;
    id_token(jwt.as_bytes(), audience, start, now)
}

/// Returns the refresh token that replaces the one that was sent (RFC 6749, 6), if the response has one.
pub(super) fn refresh_token(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct RefreshTokenResponse {
        refresh_token: Option<String>,
    }

    let answer: RefreshTokenResponse = object(body)?;
    answer.refresh_token.filter(|token| !token.is_empty())
}

/// Returns whether an `aud` claim names exactly this audience: as a string, or as a list with one member.
fn is_only(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::String(only) => only == audience,
        Value::Array(members) => {
            matches!(members.as_slice(), [Value::String(only)] if only == audience)
        }
        _ => false,
    }
}

fn token(value: &str, expires: Deadline, now: Now) -> Result<Token, Malformed> {
    let token = Token::new(value, expires, now).ok_or(Malformed::NotVisible)?;
    match token.freshness(now) {
        Freshness::Expired => Err(Malformed::Expired),
        Freshness::Expiring | Freshness::Stale | Freshness::Fresh => Ok(token),
    }
}

/// Parses a JSON object. Serde would accept an array too, and its error would quote the text.
pub(super) fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    // serde_json checks the encoding only of the fields that it keeps (RFC 8259, 8.1).
    let json = str::from_utf8(json).ok()?;
    json.trim_ascii_start()
        .starts_with('{')
        .then(|| serde_json::from_str(json).ok())?
}

/// Parses a positive number of seconds, given as a number or as text.
fn seconds(value: Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds.is_finite() && seconds > 0.0)
        .then(|| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())))
}

/// Parses seconds since the epoch (RFC 7519, NumericDate).
fn instant(number: &Number) -> Option<Duration> {
    Duration::try_from_secs_f64(number.as_f64()?).ok()
}

fn is_base64url(part: &str) -> bool {
    let digits = part.trim_end_matches('=');
    !digits.is_empty()
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The audience that [`fuzz_answers`] expects.
#[cfg(any(fuzzing, test))]
const FUZZED: &str = "https://a.run.app";

/// Parses any bytes as each kind of response. It checks that nothing panics, no token lives too long, no ID token has
/// another audience or no signature, and no error quotes the input.
#[cfg(any(fuzzing, test))]
pub fn fuzz_answers(body: &[u8]) {
    rfc3339::fuzz_rfc3339(body);
    let now = Now::now();
    let id = id_token(body, FUZZED, now, now);
    if let Ok(token) = &id {
        let mut parts = token
            .reveal()
            .split('.')
            .filter_map(|part| serde_json::from_slice::<Value>(&BASE64URL.decode(part).ok()?).ok());
        let (header, claims) = (parts.next(), parts.next());
        let aud = claims.and_then(|claims| claims.get("aud").cloned());
        assert!(aud == Some(FUZZED.into()) || aud == Some([FUZZED].as_slice().into()));
        let alg = header.and_then(|header| header.get("alg")?.as_str().map(str::to_lowercase));
        assert!(alg.is_some_and(|alg| alg.trim() != "none"));
    }
    let _ = refresh_token(body);
    let iam = [
        id_token_in("id_token", body, FUZZED, now, now),
        iam_access_token(body, Duration::from_secs(3600), now, now),
        iam_id_token(body, FUZZED, now, now),
    ];
    if let Ok(jwt) = signed_jwt(body) {
        assert_eq!(jwt.split('.').count(), 3);
    }
    for read in [access_token(body, now, now), id].into_iter().chain(iam) {
        match read {
            Ok(token) => assert!(token.left(now) <= LONGEST && !token.reveal().is_empty()),
            Err(malformed) => assert!(format!("{malformed}").is_ascii()),
        }
    }
}

#[cfg(test)]
mod iam_tests;
#[cfg(test)]
mod tests;
