//! Error responses: `application/problem+json` (RFC 9457), or a trailers-only gRPC response for a gRPC caller. Both
//! carry `Proxy-Status` (RFC 9209), so that neither is mistaken for the upstream's.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;

use super::headers::proxy_status::PROXY_STATUS;
use super::request::body::{ResponseBody, leave_head};
use crate::error::{Error, ErrorKind, Problem};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The characters that gRPC encodes in `grpc-message`: all but printable ASCII, and the percent sign.
const GRPC_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns the response for an error, as `application/problem+json`.
pub(super) fn problem(error: &Error) -> Response<ResponseBody> {
    let row = error.kind().row();
    let mut response = Response::new(ResponseBody::Text(Bytes::from(problem_json(
        error.problem(),
    ))));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(PROXY_STATUS, proxy_status(error));
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(
        error.kind(),
        ErrorKind::BadRequest | ErrorKind::Malformed | ErrorKind::NotAbsolute
    ) {
        // An ambiguous request may hide another one behind it. HTTP/2 has no such header, and hyper leaves it out.
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

/// Returns the response for an error, as trailers-only gRPC: the status is in the head, and there is no body (gRPC over
/// HTTP/2, "Responses").
pub(super) fn grpc(error: &Error) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
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

/// Returns the response without content, as the answer to HEAD.
pub(super) fn head_only(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut head, mut body) = response.into_parts();
    if let ResponseBody::Text(text) = &mut body {
        leave_head(&mut head.headers, text);
    }
    Response::from_parts(head, body)
}

/// Returns the content of [`problem`].
pub(super) fn problem_json(problem: &Problem) -> String {
    let row = problem.kind().row();
    let body = json!({
        "type": problem.page(),
        "title": problem.heading(),
        "status": row.status.as_u16(),
        "detail": problem.detail(),
    });
    format!("{body}\n")
}

/// Returns the value of `Proxy-Status` for an error. `details` is an sf-string (RFC 8941, 3.3.3): printable ASCII with
/// `"` and `\` escaped.
pub(super) fn proxy_status(error: &Error) -> HeaderValue {
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

    async fn text(response: Response<ResponseBody>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_has_the_detail_and_retry_after() {
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
        let page = body["type"].as_str().unwrap();
        assert!(
            page.ends_with("/docs/errors.md#token-unavailable"),
            "{page}"
        );
        assert_eq!(body["detail"], "token: \"down\"\n");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, seconds) in [
            (0, "1"),
            (300, "1"),
            (1000, "1"),
            (1001, "2"),
            (29_999, "30"),
        ] {
            let error = Error::new(ErrorKind::TokenUnavailable, "token: down")
                .retry_after(std::time::Duration::from_millis(millis));
            assert_eq!(
                problem(&error).headers()["retry-after"],
                seconds,
                "{millis}"
            );
        }
    }

    #[tokio::test]
    async fn a_grpc_caller_gets_a_trailers_only_response() {
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
        fn every_detail_becomes_a_valid_header(detail in "\\PC*") {
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
