//! Subject tokens of OIDC identity providers, for a URL (as a CI system provides them to jobs) or for a file.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request};
use serde_json::{Value, json};

use super::super::query_params::QueryParams;
use super::Google;
use super::aws::CLUSTER;
use super::error_response::ErrorResponse;
use super::oauth::HOUR;
use super::sts::IDP;

/// Answers like GitHub's endpoint for ID tokens of jobs.
pub(super) fn call(
    google: &Google,
    request: &Request<Bytes>,
    now: u64,
) -> Result<Value, ErrorResponse> {
    let expected = format!("Bearer {}", google.request_token);
    let authorization = request.headers().get(AUTHORIZATION);
    if request.method() != Method::GET {
        return Err(ErrorResponse::not_found());
    }
    if authorization.is_none_or(|value| value.as_bytes() != expected.as_bytes()) {
        return Err(ErrorResponse::unauthenticated());
    }
    let query = QueryParams::new(request.uri().query());
    let audience = query.value("audience").unwrap_or_default();
    if audience.is_empty() {
        return Err(ErrorResponse::invalid_argument("audience required"));
    }
    let token = google.oidc(IDP, &audience, "repo:example/shop", now, HOUR)?;
    Ok(json!({"value": token, "count": token.len()}))
}

impl Google {
    /// Returns a subject token of the OIDC provider with a lifetime in seconds.
    pub fn subject_token(&self, now: std::time::SystemTime, seconds: u64) -> Option<String> {
        let audience = format!("https:{}/providers/oidc", self.directory().pool());
        let now = super::unix(now);
        self.oidc(IDP, &audience, "repo:example/shop", now, seconds)
            .ok()
    }

    /// Returns the token of a Kubernetes pod for its AWS role, with a lifetime in seconds.
    pub fn web_identity_token(&self, now: std::time::SystemTime, seconds: u64) -> Option<String> {
        let subject = "system:serviceaccount:default:example";
        let now = super::unix(now);
        self.oidc(CLUSTER, "sts.amazonaws.com", subject, now, seconds)
            .ok()
    }

    fn oidc(
        &self,
        issuer: &str,
        audience: &str,
        subject: &str,
        now: u64,
        seconds: u64,
    ) -> Result<String, ErrorResponse> {
        let claims = json!({
            "iss": issuer,
            "aud": audience,
            "sub": subject,
            "iat": now,
            "exp": now + seconds,
        });
        self.idp_key
            .sign(&claims)
            .ok_or_else(ErrorResponse::internal)
    }
}
