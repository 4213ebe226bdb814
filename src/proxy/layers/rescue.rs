//! Layer 2, **Rescue**: the only place that makes a response of an error. An HTTP/2 stream whose request the upstream has
//! not processed, and that we cannot send again, is reset with REFUSED_STREAM in place of that (RFC 9113, 8.7).
//!
//! `application/problem+json` (RFC 9457), or a trailers-only gRPC response for a gRPC caller, and `Proxy-Status`
//! (RFC 9209) on both, so that neither is ever mistaken for the upstream's.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::service::Service;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pin_project_lite::pin_project;
use serde_json::json;
use tower::Layer;

use crate::error::{Error, ErrorKind};
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::headers::proxy_status::PROXY_STATUS;
use crate::proxy::request::Inbound;
use crate::proxy::request::body::{Body, leave_head};
use crate::proxy::request::record::RequestRecord;
use crate::proxy::service::{Outcome, ProxyService};
use crate::telemetry::Metrics;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What gRPC wants encoded in `grpc-message`: all but printable ASCII, and the percent sign.
const GRPC_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Makes [`Rescue`].
#[derive(Clone, Debug)]
pub(crate) struct RescueLayer {
    pub(crate) metrics: Arc<Metrics>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Rescue<S> {
    inner: S,
    pub(crate) metrics: Arc<Metrics>,
}

pin_project! {
    /// The answer on its way back.
    #[derive(Debug)]
    pub struct RescueFuture<F> {
        #[pin]
        inner: F,
        record: Arc<RequestRecord>,
        metrics: Arc<Metrics>,
        grpc: bool,
    }
}

impl<S> Layer<S> for RescueLayer {
    type Service = Rescue<S>;

    fn layer(&self, inner: S) -> Rescue<S> {
        Rescue {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

impl<S: ProxyService<Inbound>> Service<Inbound> for Rescue<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = RescueFuture<S::Future>;

    fn call(&self, inbound: Inbound) -> Self::Future {
        RescueFuture {
            record: inbound.record.clone(),
            metrics: self.metrics.clone(),
            grpc: is_grpc(inbound.request.headers()),
            inner: self.inner.call(inbound),
        }
    }
}

impl<F> Future for RescueFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        Poll::Ready(match ready!(this.inner.poll(cx)) {
            Ok(response) => Ok(response),
            Err(error) => {
                this.record.failed(&error);
                this.metrics.proxy_error(error.kind());
                tracing::debug!(error = ?error, "request failed");
                if error.is_refused() && this.record.is_http2() {
                    // hyper resets the stream with REFUSED_STREAM, and the app may send the request again.
                    this.record.answered(error.kind().row().status);
                    this.record.complete();
                    return Poll::Ready(Err(error));
                }
                match this.record.answer_ourselves(error.kind()) {
                    Ok(()) => {
                        let mut response = if *this.grpc {
                            grpc(&error)
                        } else {
                            problem(&error)
                        };
                        if this.record.is_head() {
                            response = head_only(response);
                        }
                        if this.record.is_connection_refused() {
                            let close = HeaderValue::from_static("close");
                            response.headers_mut().insert(header::CONNECTION, close);
                        }
                        Ok(response)
                    }
                    // Ends the stream or, over HTTP/1, the connection.
                    Err(_) => Err(error.caused_by(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM))),
                }
            }
        })
    }
}

/// RFC 9457; the detail is the error's own text.
fn problem(error: &Error) -> Response<Body> {
    let row = error.kind().row();
    let mut response = Response::new(Body::Text(Bytes::from(problem_json(error))));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(PROXY_STATUS, proxy_status(error));
    if let Some(wait) = error.wait() {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(wait.as_secs().max(1)),
        );
    }
    if matches!(
        error.kind(),
        ErrorKind::BadRequest | ErrorKind::Malformed | ErrorKind::NotAbsolute
    ) {
        // Who reads a request in two ways may see another one behind it. HTTP/2 has no such header, and hyper leaves it out.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if error.kind() == ErrorKind::ProxyAuthRequired {
        headers.insert(
            header::PROXY_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"sidentity\", charset=\"UTF-8\""),
        );
    }
    response
}

/// The answer to HEAD.
fn head_only(response: Response<Body>) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    if let Body::Text(text) = &mut body {
        leave_head(&mut head.headers, text);
    }
    Response::from_parts(head, body)
}

/// The body of a problem.
pub(crate) fn problem_json(error: &Error) -> String {
    let row = error.kind().row();
    let body = json!({
        "type": format!("urn:sidentity:error:{}", row.proxy_status),
        "title": row.title,
        "status": row.status.as_u16(),
        "detail": error.detail(),
    });
    format!("{body}\n")
}

/// Trailers-only: the status in the head, no body (gRPC over HTTP/2, "Responses").
fn grpc(error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(error.grpc())));
    let message = utf8_percent_encode(error.detail(), GRPC_ENCODED).to_string();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    headers.insert(PROXY_STATUS, proxy_status(error));
    response
}

/// `details` is an sf-string (RFC 8941, 3.3.3): printable ASCII with `"` and `\` escaped.
pub(crate) fn proxy_status(error: &Error) -> HeaderValue {
    let mut value = format!(
        "sidentity; error={}; details=\"",
        error.kind().row().proxy_status
    );
    for character in error.detail().chars().take(512) {
        match character {
            '"' | '\\' => {
                let _ = write!(value, "\\{character}");
            }
            ' '..='~' => value.push(character),
            _ => value.push('?'),
        }
    }
    value.push('"');
    HeaderValue::from_str(&value).unwrap_or_else(|_| HeaderValue::from_static("sidentity"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_says_what_and_when_to_try_again() {
        let error = Error::new(ErrorKind::TokenUnavailable, "token: \"down\"\n")
            .retry_after(std::time::Duration::from_millis(300));
        let response = problem(&error);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(
            response.headers()["proxy-status"],
            r#"sidentity; error=proxy_internal_error; details="token: \"down\"?""#
        );
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["status"], 503);
        assert_eq!(body["detail"], "token: \"down\"\n");
    }

    #[tokio::test]
    async fn a_grpc_caller_gets_trailers_only() {
        let response = grpc(&Error::new(ErrorKind::Denied, "no 100% – never"));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(
            response.headers()["grpc-message"],
            "no 100%25 %E2%80%93 never"
        );
        assert_eq!(text(response).await, "");
    }

    proptest! {
        #[test]
        fn no_detail_can_break_a_header(detail in "\\PC*") {
            for kind in ErrorKind::ALL {
                let error = Error::new(kind, detail.clone());
                let value = proxy_status(&error);
                prop_assert!(value.to_str().unwrap().starts_with("sidentity; error="));
                prop_assert!(grpc(&error).headers().contains_key("grpc-message"));
                prop_assert_eq!(problem(&error).status(), kind.row().status);
            }
        }
    }
}
