//! `Max-Forwards` of TRACE and OPTIONS (RFC 9110, 7.6.2): counted down, and at 0 the request is answered here.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Body as _;

use crate::error::{Error, ErrorKind};
use crate::proxy::headers::proxy_status::PROXY_STATUS;
use crate::proxy::request::body::{RequestBody, ResponseBody};

/// The methods that are forwarded.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT";

/// A field whose name holds one of these is left out of an echo (RFC 9110, 9.3.8).
const SENSITIVE: [&str; 9] = [
    "assertion",
    "auth",
    "cookie",
    "credential",
    "key",
    "password",
    "secret",
    "signature",
    "token",
];

/// Decrements the field of a TRACE or OPTIONS request. Returns the response if the field is 0, since this proxy is the
/// final recipient then.
///
/// # Errors
///
/// The field is not one decimal number, or a TRACE request has content.
pub(crate) fn count_down(
    request: &mut Request<RequestBody>,
) -> Result<Option<Response<ResponseBody>>, Error> {
    let trace = match *request.method() {
        Method::TRACE => true,
        Method::OPTIONS => false,
        _ => return Ok(None),
    };
    if trace && !request.body().is_end_stream() {
        return Err(bad("a TRACE request with content (RFC 9110, 9.3.8)"));
    }
    match left(request.headers())? {
        None => Ok(None),
        Some(0) if trace => Ok(Some(answer("message/http", echo(request)))),
        Some(0) => {
            let mut response = answer("text/plain", String::new());
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_TYPE);
            headers.insert(header::ALLOW, HeaderValue::from_static(ALLOW));
            Ok(Some(response))
        }
        Some(left) => {
            let headers = request.headers_mut();
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(None)
        }
    }
}

/// Returns how often the request may still be forwarded. Larger numbers saturate.
fn left(headers: &HeaderMap) -> Result<Option<u32>, Error> {
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes().trim_ascii();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad(
            "Max-Forwards is not one decimal number (RFC 9110, 7.6.2)",
        ));
    }
    let left = digits.iter().fold(0u32, |left, digit| {
        left.saturating_mul(10)
            .saturating_add(u32::from(digit.saturating_sub(b'0')))
    });
    Ok(Some(left))
}

/// Returns the request as it was received, without the fields that may hold secrets.
fn echo(request: &Request<RequestBody>) -> String {
    let uri = request.uri();
    let mut target = uri.to_string();
    if let Some((userinfo, _)) = uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit_once('@'))
    {
        target = target.replacen(&format!("{userinfo}@"), "", 1);
    }
    let mut echo = format!("{} {target} {:?}\r\n", request.method(), request.version());
    for (name, value) in request.headers() {
        if !value.is_sensitive() && !is_sensitive(name) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let _ = write!(echo, "{name}: {value}\r\n");
        }
    }
    echo.push_str("\r\n");
    echo
}

fn is_sensitive(name: &HeaderName) -> bool {
    SENSITIVE.iter().any(|part| name.as_str().contains(part))
}

fn answer(media_type: &'static str, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Text(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(
        PROXY_STATUS,
        HeaderValue::from_static("sidentity; details=\"answered here: Max-Forwards is 0\""),
    );
    response
}

fn bad(detail: &str) -> Error {
    Error::new(ErrorKind::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Option<u32>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::MAX_FORWARDS, HeaderValue::from_str(value).unwrap());
        }
        left(&headers).ok()
    }

    #[test]
    fn max_forwards_is_one_decimal_number() {
        assert_eq!(of(&[]), Some(None));
        assert_eq!(of(&["0"]), Some(Some(0)));
        assert_eq!(of(&[" 007 "]), Some(Some(7)));
        assert_eq!(of(&["99999999999999999999"]), Some(Some(u32::MAX)));
        for bad in [
            &[""][..],
            &["+1"],
            &["-1"],
            &["1, 1"],
            &["0x1"],
            &["1.0"],
            &["1", "1"],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
