//! What a web page may not do here: use a browser on this machine to reach a route or the admin port.

use http::{HeaderMap, HeaderName, Uri, header};

use crate::destination::{Destination, Host};

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

/// Only an `http` or `https` origin has a host that can be local: the "host" of `chrome-extension://id` is an identifier,
/// and `null` (a sandboxed page, a file) has none.
fn is_local_origin(origin: &[u8], allowed: &[Host]) -> bool {
    let page = Uri::try_from(origin)
        .ok()
        .and_then(|uri| Destination::from_uri(&uri).ok());
    page.is_some_and(|page| {
        let host = &page.origin.host;
        host.is_loopback() || host.is_single_label() || allowed.contains(host)
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
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://localhost",
            "vscode-webview://webview",
            "app://localhost",
            "capacitor://localhost",
            "tauri://localhost",
            "ftp://localhost",
            "ws://localhost:3000",
            "localhost",
            "localhost:3000",
            "web",
            "//localhost",
            "http:///",
            "",
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
