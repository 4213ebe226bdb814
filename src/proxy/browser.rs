//! What a web page may not do here: use a browser on this machine to reach a route or the admin port.

use http::{HeaderMap, HeaderName, Uri, header};

use crate::destination::Host;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a page that could make a name resolve to this address would still not be taken in (DNS rebinding): loopback,
/// a single label, an allowed name, or the very address that the connection came to.
pub fn is_ours(host: &Host, local: &Host, allowed: &[Host]) -> bool {
    host.is_loopback() || host.is_single_label() || allowed.contains(host) || host == local
}

/// What only a browser says (Fetch metadata; RFC 6454, 7): the request is made for a page that is not local.
pub fn is_cross_site(headers: &HeaderMap, allowed: &[Host]) -> bool {
    let cross_site = headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"cross-site"));
    cross_site
        || headers
            .get_all(header::ORIGIN)
            .iter()
            .any(|origin| !is_local_origin(origin.as_bytes(), allowed))
}

fn is_local_origin(origin: &[u8], allowed: &[Host]) -> bool {
    let host = Uri::try_from(origin)
        .ok()
        .and_then(|uri| uri.host().map(Host::parse))
        .and_then(Result::ok);
    host.is_some_and(|host| {
        // "null" is what a sandboxed page sends; as a URI it would be the single label "null".
        origin != b"null"
            && (host.is_loopback() || host.is_single_label() || allowed.contains(&host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross_site(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        is_cross_site(&headers, &[Host::parse("app.example").unwrap()])
    }

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        for origin in [
            "https://evil.test",
            "null",
            "http://localhost.evil.test",
            "file://",
            "junk junk",
        ] {
            assert!(cross_site("origin", origin), "{origin}");
        }
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:8081",
            "http://web:80",
            "https://app.example",
        ] {
            assert!(!cross_site("origin", origin), "{origin}");
        }
        assert!(cross_site("sec-fetch-site", "cross-site"));
        assert!(!cross_site("sec-fetch-site", "same-origin"));
        assert!(!cross_site("sec-fetch-site", "none"));
    }
}
