//! What an error says of the request: whether the upstream may have processed it, and what becomes of the connection.

use std::io;

use super::{Cause, cause};

/// An upstream that says it did not begin with the request (RFC 9113, 8.7): a refused stream, or one that began after
/// the last that a GOAWAY still covers.
pub(in crate::upstream) fn is_unprocessed(error: &hyper::Error) -> bool {
    let Cause::Http2(error) = cause(error) else {
        return false;
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// The connection was lost, by whichever end: what the upstream had done by then, nobody knows.
pub(in crate::upstream) fn is_broken(error: &hyper::Error) -> bool {
    is_closed(error)
        || error.is_timeout()
        || error.is_canceled()
        || matches!(cause(error), Cause::Http2(error) if error.get_io().is_some_and(is_loss))
}

/// The end of the connection, rather than what came over it being wrong. Too many interim responses were to other requests:
/// each such stream is reset before that.
fn is_loss(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

/// The response was found to be malformed, as that of a stream is made to be whose interim responses are too many.
pub(in crate::upstream) fn is_malformed(error: &hyper::Error) -> bool {
    matches!(cause(error), Cause::Http2(error) if error.is_reset() && error.is_library())
}

/// The gRPC status of a stream that was reset with this code before its response ("Errors" of the gRPC over HTTP/2
/// specification). A code that it does not name counts as `INTERNAL_ERROR` (RFC 9113, 7).
pub(super) const fn grpc_status(code: h2::Reason) -> u8 {
    match code {
        h2::Reason::REFUSED_STREAM => 14,
        h2::Reason::CANCEL => 1,
        h2::Reason::ENHANCE_YOUR_CALM => 8,
        h2::Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// The upstream takes no more requests on this connection.
pub(in crate::upstream) fn is_going_away(error: &hyper::Error) -> bool {
    matches!(cause(error), Cause::Http2(error) if error.is_go_away())
}

/// The upstream closes the connection because of too many PINGs (gRPC, "Client-side Keepalive").
pub(in crate::upstream) fn is_too_many_pings(error: &hyper::Error) -> bool {
    let Cause::Http2(error) = cause(error) else {
        return false;
    };
    // h2 shows the debug data only in its text.
    error.is_remote()
        && error.is_go_away()
        && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        && error.to_string().contains("too_many_pings")
}

/// The connection ended, rather than what came over it being wrong.
pub(in crate::upstream) fn is_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || (!error.is_parse() && matches!(cause(error), Cause::Io(_)))
}
