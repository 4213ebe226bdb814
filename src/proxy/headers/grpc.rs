//! Recognises gRPC.

use http::{HeaderMap, header};

/// Returns whether the content type is `application/grpc`, alone or followed by `+` or `;`. gRPC-Web is another
/// protocol, which uses the HTTP status.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().split_at_checked(GRPC.len()))
        .is_some_and(|(name, rest)| {
            name.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
        })
}
