//! Classifies errors: whether the upstream may have processed the request, and whether the connection is usable.

use std::io;

use super::{Cause, cause};

/// Returns whether the upstream reports that it did not begin the request (RFC 9113, 8.7): it refused the stream, or a
/// GOAWAY does not cover it.
pub(in crate::upstream) fn is_unprocessed(error: &hyper::Error) -> bool {
    let Cause::Http2(error) = cause(error) else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// Returns whether the connection was lost. It is then unknown what the upstream has processed.
pub(in crate::upstream) fn is_broken(error: &hyper::Error) -> bool {
    is_closed(error)
        || error.is_timeout()
        || error.is_canceled()
        || matches!(cause(error), Cause::Http2(error) if error.get_io().is_some_and(is_loss))
}

/// Returns whether the connection ended, as opposed to invalid bytes. Excess interim responses belong to other
/// requests, because their own stream is reset first.
fn is_loss(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

/// Returns whether the response was malformed, as after too many interim responses.
pub(in crate::upstream) fn is_malformed(error: &hyper::Error) -> bool {
    matches!(cause(error), Cause::Http2(error) if error.is_reset() && error.is_library())
}

/// Returns the gRPC status of a stream that was reset with this code before its response ("Errors" of the gRPC over
/// HTTP/2 specification). An unknown code counts as `INTERNAL_ERROR` (RFC 9113, 7).
pub(super) const fn grpc_status(code: h2::Reason) -> u8 {
    match code {
        h2::Reason::REFUSED_STREAM => 14,
        h2::Reason::CANCEL => 1,
        h2::Reason::ENHANCE_YOUR_CALM => 8,
        h2::Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// Returns whether the upstream accepts no more requests on this connection.
pub(in crate::upstream) fn is_going_away(error: &hyper::Error) -> bool {
    matches!(cause(error), Cause::Http2(error) if error.is_go_away())
}

/// Returns whether the upstream closes the connection because of too many PINGs (gRPC, "Client-side Keepalive").
pub(in crate::upstream) fn is_too_many_pings(error: &hyper::Error) -> bool {
    let Cause::Http2(error) = cause(error) else {
        return false;
    };
    // h2 exposes the debug data only in its text.
    error.is_remote()
        && error.is_go_away()
        && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        && error.to_string().contains("too_many_pings")
}

/// Returns whether the connection ended, as opposed to invalid bytes.
pub(in crate::upstream) fn is_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || (!error.is_parse() && matches!(cause(error), Cause::Io(_)))
}
