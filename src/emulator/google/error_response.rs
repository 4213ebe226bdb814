//! Error responses in the formats of Google's and Amazon's endpoints.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

const JSON: &str = "application/json; charset=UTF-8";

/// A response other than 200.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    status: StatusCode,
    content_type: &'static str,
    /// Whether the response is marked as one of Identity-Aware Proxy.
    iap: bool,
    body: String,
}

/// Marks a response of Identity-Aware Proxy.
const IAP_GENERATED: HeaderName = HeaderName::from_static("x-goog-iap-generated-response");

// === impl ErrorResponse ===

impl ErrorResponse {
    /// Returns an OAuth error (RFC 6749, 5.2) with status 400.
    pub(super) fn oauth(error: &str, description: impl AsRef<str>) -> Self {
        Self::oauth_with(StatusCode::BAD_REQUEST, error, description)
    }

    /// Returns an OAuth error with another status.
    pub(super) fn oauth_with(
        status: StatusCode,
        error: &str,
        description: impl AsRef<str>,
    ) -> Self {
        let body = json!({"error": error, "error_description": description.as_ref()});
        Self::json(status, &body)
    }

    /// Returns an error of a Google API (`google.rpc.Status` in JSON).
    pub(super) fn api(status: StatusCode, name: &str, message: impl AsRef<str>) -> Self {
        Self::json(
            status,
            &json!({"error": {"code": status.as_u16(), "message": message.as_ref(), "status": name}}),
        )
    }

    /// Returns 400 of a Google API.
    pub(super) fn invalid_argument(message: impl AsRef<str>) -> Self {
        Self::api(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    /// Returns 401 of a Google API, with Google's text.
    pub(super) fn unauthenticated() -> Self {
        Self::api(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
             authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        )
    }

    /// Returns 403 of IAM for a caller that lacks a permission on an account.
    pub(super) fn permission(permission: &str) -> Self {
        let message =
            format!("Permission '{permission}' denied on resource (or it may not exist).");
        let metadata = json!({"permission": permission});
        let domain = "iam.googleapis.com";
        Self::forbidden(&message, "IAM_PERMISSION_DENIED", domain, &metadata)
    }

    /// Returns 403 for a token that lacks a scope.
    pub(super) fn scopes(service: &str) -> Self {
        let message = "Request had insufficient authentication scopes.";
        let reason = "ACCESS_TOKEN_SCOPE_INSUFFICIENT";
        let metadata = json!({"service": service});
        Self::forbidden(message, reason, "googleapis.com", &metadata)
    }

    fn forbidden(message: &str, reason: &str, domain: &str, metadata: &Value) -> Self {
        Self::json(
            StatusCode::FORBIDDEN,
            &json!({"error": {
                "code": 403,
                "message": message,
                "status": "PERMISSION_DENIED",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason,
                    "domain": domain,
                    "metadata": metadata,
                }],
            }}),
        )
    }

    /// Returns 401 of Identity-Aware Proxy.
    pub(super) fn iap(why: &str) -> Self {
        Self {
            iap: true,
            ..Self::text(StatusCode::UNAUTHORIZED, why)
        }
    }

    /// Returns text, like the AWS metadata endpoints.
    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain",
            iap: false,
            body: text.to_owned(),
        }
    }

    /// Returns an error of the AWS query protocol.
    pub(super) fn aws(status: StatusCode, code: &str, message: &str) -> Self {
        Self {
            status,
            content_type: "text/xml",
            iap: false,
            body: format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>{}</Message></Error><RequestId>emulator</RequestId></ErrorResponse>",
                escaped(message),
            ),
        }
    }

    /// Returns 404 for a path that no endpoint has.
    pub(super) fn not_found() -> Self {
        Self::api(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "no such endpoint here; see `sidentity metadata-server --help`",
        )
    }

    /// Returns 500. It occurs only if the system has no randomness.
    pub(super) fn internal() -> Self {
        Self::api(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "no token can be made",
        )
    }

    fn json(status: StatusCode, body: &Value) -> Self {
        Self {
            status,
            content_type: JSON,
            iap: false,
            body: body.to_string(),
        }
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let mut response = response(self.status, self.content_type, self.body);
        if self.iap {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(IAP_GENERATED, value);
        }
        response
    }
}

/// Returns 200 with JSON.
pub(super) fn success(body: &Value) -> Response<Bytes> {
    response(StatusCode::OK, JSON, body.to_string())
}

/// Adds a field to a JSON object.
pub(super) fn insert(answer: &mut Value, name: &str, value: String) {
    if let Some(fields) = answer.as_object_mut() {
        fields.insert(name.to_owned(), Value::String(value));
    }
}

/// Builds a response.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Escapes text between two XML tags.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
