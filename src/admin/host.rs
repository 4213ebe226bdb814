//! The host of a request to the admin port.

use http::uri::Authority;
use http::{Request, Version};

use crate::error::{Error, ErrorKind};
use crate::proxy::{host_text, is_authority};

/// Returns the authority that a request names. Only an HTTP/1.1 request must have a `Host` (RFC 9112, 3.2).
pub(super) fn named<B>(request: &Request<B>) -> Result<Option<&str>, Error> {
    let bad = |detail: &str| Error::new(ErrorKind::BadRequest, detail);
    let host = host_text(request)?;
    if host.is_some_and(|host| !is_authority(host)) {
        return Err(bad("the Host header is not a valid host"));
    }
    let target = request.uri().authority().map(Authority::as_str);
    if let (Some(target), Some(host)) = (target, host)
        && request.version() == Version::HTTP_2
        && !target.eq_ignore_ascii_case(host)
    {
        return Err(bad("the Host header differs from :authority"));
    }
    Ok(target.or(host))
}
