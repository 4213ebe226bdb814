//! Requests like those of a Google client, and their signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use sidentity::emulator::Identity;
use sidentity::emulator::google::{Endpoints, Google};

pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The status and the JSON of a response.
pub(super) type Reply = (u16, Value);

pub(super) fn google() -> Google {
    Google::new(&Identity::default()).unwrap()
}

pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Sends a request and reads the answer.
pub(super) fn send(google: &Google, request: &Request<Bytes>) -> Reply {
    let response = google.respond(request, SystemTime::now());
    let status = response.status();
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let json = serde_json::from_slice(response.body()).unwrap_or_default();
    (status.as_u16(), json)
}

/// Posts a form.
pub(super) fn form(google: &Google, url: &str, fields: &[(&str, &str)]) -> Reply {
    send(google, &form_request(url, fields))
}

pub(super) fn form_request(url: &str, fields: &[(&str, &str)]) -> Request<Bytes> {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    Request::post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.into())
        .unwrap()
}

/// Posts JSON with a bearer token.
pub(super) fn post(google: &Google, url: &str, token: &str, body: &Value) -> Reply {
    let request = Request::post(url)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(body.to_string().into());
    send(google, &request.unwrap())
}

/// Returns a JWT that the key of a file signs.
pub(super) fn signed(file: &Value, claims: &Value) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": file["private_key_id"]});
    signed_with(file, &header, claims)
}

pub(super) fn signed_with(file: &Value, header: &Value, claims: &Value) -> String {
    let pem = file["private_key"].as_str().unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = KeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap();
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(
        &RSA_PKCS1_SHA256,
        &random,
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(super) fn key_file(google: &Google) -> Value {
    google.service_account(&Endpoints::default()).unwrap()
}

/// Returns a self-signed JWT of the main account, for any service.
pub(super) fn account_token(google: &Google) -> String {
    let file = key_file(google);
    let email = &file["client_email"];
    let iat = now() - 10;
    signed(
        &file,
        &json!({"iss": email, "sub": email, "scope": CLOUD_PLATFORM, "iat": iat, "exp": iat + 3600}),
    )
}

/// Returns the claims of a JWT.
pub(super) fn claims(jwt: &Value) -> Value {
    crate::support::google::Jwt::read(jwt.as_str().unwrap()).claims
}
