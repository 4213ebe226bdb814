//! Rewrites targets to the form that the layers below expect.

use http::uri::{self, PathAndQuery};
use http::{Method, Request, Uri, Version};

use crate::proxy::request::body::RequestBody;

/// Replaces `ws` and `wss` in an absolute target by `http` and `https`: a WebSocket begins as an HTTP request (RFC
/// 6455, 3 and 4.1).
pub(super) fn replace_websocket_scheme(request: &mut Request<RequestBody>) {
    if request.version() >= Version::HTTP_2 {
        return;
    }
    let scheme = match request.uri().scheme_str() {
        Some(scheme) if scheme.eq_ignore_ascii_case("ws") => uri::Scheme::HTTP,
        Some(scheme) if scheme.eq_ignore_ascii_case("wss") => uri::Scheme::HTTPS,
        _ => return,
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    // Cannot fail: all three parts are present.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// Replaces an absolute OPTIONS target without a path, which means the whole server, by `*` (RFC 9112, 3.2.4). HTTP/2
/// uses `*` already (RFC 9113, 8.3.1).
pub(super) fn replace_server_wide_target(request: &mut Request<RequestBody>) {
    let uri = request.uri();
    if request.method() == Method::OPTIONS
        && request.version() < Version::HTTP_2
        && uri.scheme().is_some()
        && uri.query().is_none()
        && !has_written_path(uri)
    {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*"));
        // Cannot fail: all three parts are present.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Returns whether an absolute URI was written with a path. [`Uri::path`] returns `/` for an absent path too, but that
/// `/` is not in the buffer that the parts of a parsed URI share.
fn has_written_path(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        let authority = authority.as_str().as_bytes().as_ptr_range();
        std::ptr::eq(authority.end, uri.path().as_ptr())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_absent_path_is_distinguished_from_a_slash() {
        for (uri, written) in [
            ("http://host", false),
            ("http://user@host:80", false),
            ("http://host#fragment", false),
            ("http://host/", true),
            ("http://host/#fragment", true),
            ("http://host:80/p", true),
        ] {
            let parsed = Uri::from_maybe_shared(Bytes::from_static(uri.as_bytes())).unwrap();
            assert_eq!(has_written_path(&parsed), written, "{uri}");
            assert_eq!(has_written_path(&uri.parse().unwrap()), written, "{uri}");
        }
    }
}
