//! The authority of a request, and checks of its form and framing.

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use super::bad;
use crate::destination::{Origin, Scheme};
use crate::error::Error;
use crate::header_lookup;
use crate::proxy::headers::hop_by_hop::is_chunked_at_most;
use crate::proxy::headers::host::host_text;
use crate::proxy::request::body::RequestBody;

/// Returns the authority that the target or `Host` names. Fails if they differ. `scheme` is that of the connection.
pub(super) fn sole_authority(
    scheme: Scheme,
    request: &Request<RequestBody>,
) -> Result<Option<Origin>, Error> {
    match authorities(scheme, request)? {
        (Some(target), Some(host)) if target != host => Err(bad(format!(
            "the request is for {target}, but its Host header is for {host}"
        ))),
        (target, host) => Ok(target.or(host)),
    }
}

/// Returns the authority of the target, and that of `Host`.
fn authorities(
    scheme: Scheme,
    request: &Request<RequestBody>,
) -> Result<(Option<Origin>, Option<Origin>), Error> {
    let host = checked_host(request)?;
    let scheme = scheme_of(request).unwrap_or(scheme);
    // An empty Host is valid only for a target without an authority (RFC 9112, 3.2), which does not occur here.
    let host = host
        .map(|host| Origin::from_authority(scheme, host))
        .transpose()
        .map_err(|error| bad(format!("Host: {error}")))?;
    Ok((target_authority(scheme, request)?, host))
}

/// Returns the text of `Host`, after the checks of framing and form.
pub(super) fn checked_host(request: &Request<RequestBody>) -> Result<Option<&str>, Error> {
    check_framing(request.headers())?;
    check_form(request)?;
    host_text(request)
}

pub(super) fn scheme_of(request: &Request<RequestBody>) -> Option<Scheme> {
    request.uri().scheme_str().map(|scheme| match scheme {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    })
}

pub(super) fn target_authority(
    scheme: Scheme,
    request: &Request<RequestBody>,
) -> Result<Option<Origin>, Error> {
    match request.uri().authority() {
        Some(authority) => {
            let text = authority.as_str();
            if request.version() == Version::HTTP_2 && text.contains('@') {
                return Err(bad("user-info in :authority (RFC 9113, 8.3.1)"));
            }
            let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
            Origin::from_authority(scheme, text)
                .map(Some)
                .map_err(|error| bad(error.to_string()))
        }
        None => Ok(None),
    }
}

/// Rejects asterisk form and authority form with the wrong method (RFC 9112, 3.2.3 and 3.2.4).
pub(super) fn check_form(request: &Request<RequestBody>) -> Result<(), Error> {
    let (method, uri) = (request.method(), request.uri());
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err(bad("the target * is for OPTIONS only (RFC 9112, 3.2.4)"));
    }
    if uri.scheme().is_none() && uri.authority().is_some() && method != Method::CONNECT {
        return Err(bad(
            "a target of host and port is for CONNECT only (RFC 9112, 3.2.3)",
        ));
    }
    Ok(())
}

/// Rejects a `CONNECT` with content (RFC 9110, 9.3.6), because its bytes may be meant for the tunnel.
pub(super) fn check_connect(headers: &HeaderMap) -> Result<(), Error> {
    let is_empty = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    if header_lookup::has(headers, &header::TRANSFER_ENCODING)
        || !header_lookup::values(headers, &header::CONTENT_LENGTH).all(is_empty)
    {
        return Err(bad(
            "a CONNECT request has no content: omit Content-Length and Transfer-Encoding",
        ));
    }
    Ok(())
}

/// Rejects requests with both length headers (request smuggling; RFC 9112, 6.3) and codings other than chunked.
pub(super) fn check_framing(headers: &HeaderMap) -> Result<(), Error> {
    if header_lookup::has(headers, &header::TRANSFER_ENCODING)
        && header_lookup::has(headers, &header::CONTENT_LENGTH)
    {
        return Err(bad(
            "the request has both Transfer-Encoding and Content-Length",
        ));
    }
    if !is_chunked_at_most(headers) {
        return Err(bad(
            "the request has a Transfer-Encoding other than chunked",
        ));
    }
    Ok(())
}
