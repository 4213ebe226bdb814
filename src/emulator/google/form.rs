//! Parses request bodies strictly: a field that an endpoint does not define is refused.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::error_response::ErrorResponse;

/// The fields of a form (`application/x-www-form-urlencoded`).
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

// === impl Form ===

impl Form {
    /// Parses the body of a POST request. Each of these fields may occur once.
    pub(super) fn read(request: &Request<Bytes>, fields: &[&str]) -> Result<Self, ErrorResponse> {
        let invalid = |why: String| ErrorResponse::oauth("invalid_request", why);
        if request.method() != Method::POST {
            return Err(invalid(format!("{} is not POST", request.method())));
        }
        if request.uri().query().is_some() {
            return Err(invalid("parameters belong into the body".to_owned()));
        }
        let media = media_type(request.headers());
        if media != "application/x-www-form-urlencoded" {
            return Err(invalid(format!("the content type is {media:?}")));
        }
        let body = std::str::from_utf8(request.body())
            .map_err(|_| invalid("the body is not UTF-8".to_owned()))?;
        Self::parse(body, fields).map_err(invalid)
    }

    /// Parses `a=b&c=d`. The error says what is wrong.
    pub(super) fn parse(text: &str, fields: &[&str]) -> Result<Self, String> {
        let mut read: Vec<(String, String)> = Vec::new();
        for pair in text.split('&') {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is not NAME=VALUE"))?;
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !fields.contains(&name.as_str()) {
                return Err(format!("unexpected form field {name:?}"));
            }
            if read.iter().any(|(known, _)| *known == name) {
                return Err(format!("the form field {name:?} is repeated"));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// Returns the value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the value of a required field that is not empty.
    pub(super) fn required(&self, name: &str) -> Result<&str, ErrorResponse> {
        self.field(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                ErrorResponse::oauth(
                    "invalid_request",
                    format!("Missing required parameter: {name}"),
                )
            })
    }
}

/// Parses the JSON body of a POST request.
pub(super) fn json<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, ErrorResponse> {
    let media = media_type(request.headers());
    if media != "application/json" {
        return Err(ErrorResponse::invalid_argument(format!(
            "the content type is {media:?}"
        )));
    }
    serde_json::from_slice(request.body()).map_err(|error| {
        ErrorResponse::invalid_argument(format!("Invalid JSON payload received. {error}"))
    })
}

/// Returns the media type without parameters, in lower case.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let value = value.unwrap_or_default().split(';').next();
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

fn decoded(text: &str) -> Result<String, String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| format!("{text:?} is not UTF-8"))
}
