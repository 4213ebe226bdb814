//! The host that a request to the admin port is for.

use http::uri::Authority;
use http::{Request, Version, header};

use crate::error::{Error, ErrorKind};
use crate::proxy::is_authority;

/// The authority that a request names. Only one of HTTP/1.1 must have a `Host` (RFC 9112, 3.2).
pub(super) fn named<B>(request: &Request<B>) -> Result<Option<&str>, Error> {
    let bad = |detail: &str| Error::new(ErrorKind::BadRequest, detail);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => {
            return Err(bad("no Host header (RFC 9112, 3.2)"));
        }
        (None, _) => None,
        (Some(_), Some(_)) => return Err(bad("more than one Host header")),
        (Some(host), None) => Some(
            host.to_str()
                .ok()
                .filter(|host| is_authority(host))
                .ok_or_else(|| bad("the Host header is no host"))?,
        ),
    };
    let target = request.uri().authority().map(Authority::as_str);
    if let (Some(target), Some(host)) = (target, host)
        && request.version() == Version::HTTP_2
        && !target.eq_ignore_ascii_case(host)
    {
        return Err(bad("the Host header differs from :authority"));
    }
    Ok(target.or(host))
}
