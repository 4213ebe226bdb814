//! Responses, with the headers that libraries check.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, SERVER};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

pub(super) const METADATA_FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

const JSON: &str = "application/json";
const TEXT: &str = "application/text";
const HTML: &str = "text/html";

/// A response without the headers that all responses have.
pub(super) struct MetadataResponse {
    pub(super) status: StatusCode,
    content_type: &'static str,
    body: String,
    extra: Option<(HeaderName, HeaderValue)>,
}

// === impl MetadataResponse ===

impl MetadataResponse {
    /// Returns a listing or a value.
    pub(super) fn text(text: &str) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: TEXT,
            body: text.to_owned(),
            extra: None,
        }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self {
            content_type: JSON,
            ..Self::text(&value.to_string())
        }
    }

    /// Returns a response that the real server labels HTML: an ID token or an error text.
    pub(super) fn html(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: HTML,
            ..Self::text(text)
        }
    }

    pub(super) fn not_found() -> Self {
        Self::html(
            StatusCode::NOT_FOUND,
            "the requested path is not on this server",
        )
    }

    /// Redirects to the same path with a final slash.
    pub(super) fn redirect(uri: &Uri) -> Self {
        let query = uri.query().map(|query| format!("?{query}"));
        let to = format!("{}/{}", uri.path(), query.unwrap_or_default());
        match HeaderValue::try_from(to) {
            Ok(to) => Self::html(StatusCode::MOVED_PERMANENTLY, "").with(LOCATION, to),
            Err(_) => Self::not_found(),
        }
    }

    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            extra: Some((name, value)),
            ..self
        }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(METADATA_FLAVOR, HeaderValue::from_static("Google"));
        headers.insert(SERVER, HeaderValue::from_static("Metadata Server for VM"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.extend(self.extra);
        response
    }
}
