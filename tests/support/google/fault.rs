//! Faults of the token endpoints: what is sent instead of a strict response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use super::super::metadata::Gate;

/// A fault of one response.
#[derive(Clone)]
pub struct Fault {
    how: How,
    headers: Vec<(String, String)>,
    delay: Duration,
    gate: Option<Gate>,
}

#[derive(Clone)]
enum How {
    /// The strict response with changes.
    Edit(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// Half of the strict response, with the matching length.
    TornJson,
    /// Half of the strict response, with the full length.
    CutShort,
    Close,
    Never,
    Respond(u16, String),
}

// === impl Fault ===

impl Fault {
    fn new(how: How) -> Self {
        Self {
            how,
            headers: Vec::new(),
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// Leaves the strict response unchanged.
    pub fn none() -> Self {
        Self::edit(|_| {})
    }

    /// Changes the strict response: `|json| json["expires_in"] = "3599".into()`.
    pub fn edit(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::new(How::Edit(Arc::new(change)))
    }

    /// Responds with this status and body.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::new(How::Respond(status, body.into()))
    }

    /// Responds with an OAuth error with status 400.
    pub fn oauth(error: &str, description: &str) -> Self {
        let body = serde_json::json!({"error": error, "error_description": description});
        Self::status(400, body.to_string()).header("content-type", "application/json")
    }

    /// Responds that the session of a Workspace user has ended.
    pub fn invalid_rapt() -> Self {
        let body = serde_json::json!({
            "error": "invalid_grant",
            "error_description": "reauth related error (invalid_rapt)",
            "error_uri": "https://support.google.com/a/answer/9368756",
            "error_subtype": "invalid_rapt",
        });
        Self::status(400, body.to_string()).header("content-type", "application/json")
    }

    /// Responds with an error of a Google API.
    pub fn api(code: u16, status: &str, message: &str) -> Self {
        let error = serde_json::json!({"code": code, "status": status, "message": message});
        let body = serde_json::json!({ "error": error });
        Self::status(code, body.to_string()).header("content-type", "application/json")
    }

    /// Responds with 429 and `Retry-After`.
    pub fn rate_limited(seconds: u64) -> Self {
        Self::api(429, "RESOURCE_EXHAUSTED", "Quota exceeded.")
            .header("retry-after", &seconds.to_string())
    }

    /// Responds with a redirect.
    pub fn redirect(location: &str) -> Self {
        Self::status(302, "").header("location", location)
    }

    /// Sends the first half of the strict response, with the matching length.
    pub fn torn_json() -> Self {
        Self::new(How::TornJson)
    }

    /// Sends the first half of the strict response, then closes the connection.
    pub fn cut_short() -> Self {
        Self::new(How::CutShort)
    }

    /// Closes the connection without a byte.
    pub fn close() -> Self {
        Self::new(How::Close)
    }

    /// Never responds.
    pub fn never() -> Self {
        Self::new(How::Never)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Delays the response.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Delays the response until the gate is opened.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    pub(super) async fn apply(self, strict: Response<Bytes>) -> Result<Response<Sent>, io::Error> {
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        tokio::time::sleep(self.delay).await;
        let half = |body: &Bytes| body.slice(..body.len() / 2);
        let mut response = match self.how {
            How::Edit(change) => strict.map(|body| {
                let Ok(mut json) = serde_json::from_slice(&body) else {
                    return Sent::whole(body);
                };
                change(&mut json);
                Sent::whole(json.to_string().into())
            }),
            How::TornJson => strict.map(|body| Sent::whole(half(&body))),
            How::CutShort => strict.map(|body| Sent {
                first: Some(half(&body)),
                promised: body.len(),
            }),
            How::Close => return Err(io::Error::other("closed as told")),
            How::Never => std::future::pending().await,
            How::Respond(status, body) => {
                let date = strict.headers()["date"].clone();
                let mut response = Response::new(Sent::whole(body.into()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response.headers_mut().insert("date", date);
                response
            }
        };
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).unwrap();
            let value = HeaderValue::try_from(value).unwrap();
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }
}

/// A body that may end before its promised length.
pub(super) struct Sent {
    first: Option<Bytes>,
    promised: usize,
}

// === impl Sent ===

impl Sent {
    pub(super) fn whole(body: Bytes) -> Self {
        Self {
            promised: body.len(),
            first: Some(body).filter(|body| !body.is_empty()),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.first.take() {
            Some(bytes) => {
                self.promised -= bytes.len();
                Some(Ok(Frame::data(bytes)))
            }
            None if self.promised == 0 => None,
            None => Some(Err(io::Error::other("ended early by the script"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.promised == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised as u64)
    }
}
