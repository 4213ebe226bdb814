//! Maps errors of hyper and of the h2 crate to errors of a request that could not be parsed.

use std::error::Error as StdError;

use super::heads::is_full;
use crate::error::{Error, ErrorKind, cause};

/// The maximum length of hyper's own head.
const MAX_BYTES: usize = 256;

/// Returns the status if the bytes are hyper's own response to a parse error: three fields and no body.
pub(super) fn automatic(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"HTTP/1.")?;
    let status = match rest.get(1..5)? {
        b" 400" => 400,
        b" 414" => 414,
        b" 431" => 431,
        _ => return None,
    };
    let head = bytes.strip_suffix(b"\r\n\r\n")?;
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let own = bytes.len() <= MAX_BYTES
        && lines.all(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with(b"connection: close")
                || line.starts_with(b"content-length: 0")
                || line.starts_with(b"date: ")
        });
    own.then_some(status)
}

/// Facts about the bytes that a client sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// Whether the head is too short to have too many fields.
    pub(super) small: bool,
    /// Whether the bytes began like TLS.
    pub(super) tls: bool,
}

/// Returns the error of an HTTP/1.1 connection whose client sent bytes that are not a request, or `None` if it ended
/// for another reason.
pub(super) fn classify(
    error: &(dyn StdError + 'static),
    answered: Option<u16>,
    received: Received,
) -> Option<Error> {
    if let Some(full) = cause(error, is_full) {
        let detail = match full.get_ref() {
            Some(full) => full.to_string(),
            None => "large heads use too much memory".to_owned(),
        };
        return Some(Error::new(ErrorKind::LimitReached, detail));
    }
    let parse = cause(error, hyper::Error::is_parse)?;
    if received.tls {
        return Some(Error::new(
            ErrorKind::TlsToPlaintext,
            "the client speaks TLS to this port, which speaks plain HTTP: write http:// in the URL of the proxy (HTTPS_PROXY too) \
             or the route",
        ));
    }
    let too_large = answered == Some(431) || answered.is_none() && parse.is_parse_too_large();
    Some(if answered == Some(414) {
        Error::new(
            ErrorKind::TargetTooLong,
            "the request target is longer than 65,534 bytes",
        )
    } else if too_large && received.small {
        // hyper reserves the two largest numbers. It reports larger ones as invalid.
        Error::new(
            ErrorKind::Malformed,
            "the request's Content-Length is too large",
        )
    } else if too_large {
        Error::new(
            ErrorKind::HeadTooLarge,
            "the request's head is too large, or has too many fields",
        )
    } else {
        Error::new(ErrorKind::Malformed, detail(&parse.to_string()))
    })
}

/// The same as [`classify`], for an HTTP/2 connection. `too_large` says whether a header block exceeded the limit of
/// field lists.
pub(super) fn rejected_http2(error: &(dyn StdError + 'static), too_large: bool) -> Option<Error> {
    let full = cause(error, |error: &h2::Error| {
        error.get_io().is_some_and(is_full)
    });
    if full.is_some() {
        let detail = "large header blocks hold too much memory (an eighth of --max-memory)";
        return Some(Error::new(ErrorKind::LimitReached, detail));
    }
    let http2 = cause(error, |error: &h2::Error| {
        error.is_library() && error.is_go_away()
    })?;
    if http2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && too_large {
        // h2 accepts only a number of CONTINUATION frames that depends on the limit.
        let detail = "the request's field list is too large: the app's HTTP/2 connection was closed (ENHANCE_YOUR_CALM)";
        return Some(Error::new(ErrorKind::HeadTooLarge, detail));
    }
    if http2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
        // h2 does not report which one.
        let detail = "the app's HTTP/2 connection was closed: it reset too many streams before they were processed, or sent too many \
                      frames with little or nothing in them (ENHANCE_YOUR_CALM)";
        return Some(Error::new(ErrorKind::LimitReached, detail));
    }
    let reason = http2
        .reason()
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let detail = format!("the app's bytes are not valid HTTP/2: the connection was closed{reason}");
    Some(Error::new(ErrorKind::Malformed, detail))
}

fn detail(error: &str) -> String {
    let hint = if error.contains("URI") {
        ": the request target is not a URI, or contains a byte that must be percent-encoded, such as \", <, >, a space or \
         one beyond ASCII (RFC 3986, 2.1); or the request has no HTTP version (HTTP/0.9 is not supported)"
    } else {
        ""
    };
    format!("the request cannot be parsed ({error}){hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 28 Nov 2026 12:00:00 GMT\r\n\r\n";

    #[test]
    fn only_a_response_head_made_by_hyper_is_withheld() {
        assert_eq!(automatic(OWN), Some(431));
        assert_eq!(
            automatic(b"HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
            Some(400)
        );
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nhi"[..],
            b"HTTP/1.1 400 Bad Request\r\nx-of: upstream\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"",
        ] {
            assert_eq!(automatic(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
