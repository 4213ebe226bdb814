//! Authentication of callers of the forward proxy (`--proxy-auth`).

use http::{HeaderMap, HeaderValue, header};

use crate::error::{Error, ErrorKind};
use crate::proxy::ingress::IngressKind;

/// Checks `Proxy-Authorization`, if the ingress requires it.
pub(crate) fn authenticate(kind: &IngressKind, headers: &HeaderMap) -> Result<(), Error> {
    let IngressKind::Forward(forward) = kind else {
        return Ok(());
    };
    let Some(expected) = &forward.auth else {
        return Ok(());
    };
    let sent = headers.get(header::PROXY_AUTHORIZATION);
    let both = sent.and_then(basic).zip(basic(expected));
    if both.is_some_and(|(sent, expected)| same(sent, expected)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ProxyAuthRequired,
        "this proxy requires credentials (--proxy-auth): write http://USER:PASSWORD@HOST:PORT in HTTP_PROXY",
    ))
}

/// Returns the credentials after `Basic`, in any case (RFC 9110, 11.1).
fn basic(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_first_chunk::<6>()?;
    scheme
        .eq_ignore_ascii_case(b"basic ")
        .then(|| rest.trim_ascii_start())
}

/// Compares credentials in constant time.
fn same(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
