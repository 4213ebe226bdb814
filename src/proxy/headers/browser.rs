//! Checks against web pages that use a browser on this machine to reach a route or the admin port.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::destination::{Destination, Host, Origin, Scheme};
use crate::header_lookup;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether a `Host` is safe from DNS rebinding: loopback, a single label, an allowed name, or the address of
/// the connection itself.
pub(crate) fn is_ours(host: &Host, local: &Host, allowed: &[Host]) -> bool {
    host.is_loopback() || host.is_single_label() || allowed.contains(host) || host == local
}

/// Returns whether a browser sends the request for a page that is neither local nor at an allowed host (Fetch metadata;
/// RFC 6454, 7).
pub(crate) fn is_cross_site(headers: &HeaderMap, allowed: &[Host]) -> bool {
    let origins = || header_lookup::values(headers, &header::ORIGIN);
    let is_allowed = |origin: &HeaderValue| {
        host_of(origin.as_bytes()).is_some_and(|host| allowed.contains(&host))
    };
    // Without Origin the site is unknown.
    let answered = header_lookup::has(headers, &header::ORIGIN) && origins().all(is_allowed);
    (is_site(headers, b"cross-site") && !answered)
        || origins().any(|origin| !is_local_origin(origin.as_bytes(), allowed))
}

/// Returns whether a browser says that page and URL have the same origin. A front end that passes the browser's headers
/// on changes `Host`, so `Origin` names the front end.
///
/// Also true for DNS rebinding: `Host` must have been checked.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    values.peek().is_some()
        && values.all(|value| value.as_bytes().eq_ignore_ascii_case(b"same-origin"))
}

/// Returns whether the page comes from the `host` that it calls, such as the address of a machine: `Origin` names it,
/// and `Sec-Fetch-Site` does not contradict. Browsers send `Sec-Fetch-Site` to secure contexts only, so not over plain
/// HTTP to an address.
///
/// `host` must have been checked, as for [`is_same_origin`].
pub(crate) fn is_from_host(headers: &HeaderMap, host: Option<&str>) -> bool {
    let own = host.and_then(|host| Origin::from_authority(Scheme::Http, host).ok());
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    own.is_some()
        && origins.peek().is_some()
        && origins.all(|origin| origin_of(origin.as_bytes()) == own)
        && !is_site(headers, b"cross-site")
}

fn is_site(headers: &HeaderMap, site: &[u8]) -> bool {
    header_lookup::values(headers, &SEC_FETCH_SITE)
        .any(|value| value.as_bytes().eq_ignore_ascii_case(site))
}

/// Returns whether an origin is local. Only `http` and `https` origins have a host: that of `chrome-extension://id` is
/// an identifier, and `null` (a sandboxed page, a file) has none.
fn is_local_origin(origin: &[u8], allowed: &[Host]) -> bool {
    host_of(origin)
        .is_some_and(|host| host.is_loopback() || host.is_single_label() || allowed.contains(&host))
}

fn origin_of(origin: &[u8]) -> Option<Origin> {
    let uri = Uri::try_from(origin).ok()?;
    Some(Destination::from_uri(&uri).ok()?.origin)
}

fn host_of(origin: &[u8]) -> Option<Host> {
    Some(origin_of(origin)?.host)
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
    fn pages_of_other_sites_are_recognised() {
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
        assert!(cross_site("sec-fetch-site", "Cross-Site"));
        assert!(!cross_site("sec-fetch-site", "same-origin"));
        assert!(!cross_site("sec-fetch-site", "none"));
    }

    #[test]
    fn an_allowed_origin_answers_for_its_site() {
        let allowed = [Host::parse("app.example").unwrap()];
        for (origins, cross_site) in [
            (&["https://app.example"][..], false),
            (&["http://APP.example.:8080"], false),
            (&[], true),
            (&["https://evil.test"], true),
            (&["https://app.example", "https://evil.test"], true),
            // No name that is in --allowed-host.
            (&["http://localhost:3000"], true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_FETCH_SITE, "cross-site".parse().unwrap());
            for origin in origins {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_cross_site(&headers, &allowed), cross_site, "{origins:?}");
        }
    }

    #[test]
    fn a_page_is_same_origin_only_if_its_whole_origin_matches() {
        for (host, origin, site, from) in [
            ("10.1.2.3:9090", "http://10.1.2.3:9090", "", true),
            ("10.1.2.3:9090", "http://10.1.2.3:9090", "same-origin", true),
            ("10.1.2.3", "http://10.1.2.3:80", "", true),
            ("10.1.2.3:9090", "http://10.1.2.3:9090", "cross-site", false),
            ("10.1.2.3:9090", "http://10.1.2.3", "", false),
            ("10.1.2.3:9090", "https://10.1.2.3:9090", "", false),
            ("10.1.2.3:9090", "http://10.1.2.4:9090", "", false),
            ("10.1.2.3:9090", "null", "", false),
            ("a b", "a b", "", false),
        ] {
            let mut headers = HeaderMap::new();
            assert!(!is_from_host(&headers, Some(host)), "no Origin");
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            if !site.is_empty() {
                headers.insert(SEC_FETCH_SITE, site.parse().unwrap());
            }
            assert_eq!(
                is_from_host(&headers, Some(host)),
                from,
                "{host} {origin} {site}"
            );
            assert!(!is_from_host(&headers, None));
            headers.append(header::ORIGIN, "https://evil.test".parse().unwrap());
            assert!(!is_from_host(&headers, Some(host)), "two");
        }
    }

    #[test]
    fn a_request_is_same_origin_only_if_every_value_is_same_origin() {
        for (values, same) in [
            (&["same-origin"][..], true),
            (&["Same-Origin", "same-origin"], true),
            (&[], false),
            (&["same-site"], false),
            (&["none"], false),
            (&["same-origin", "cross-site"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_FETCH_SITE, value.parse().unwrap());
            }
            assert_eq!(is_same_origin(&headers), same, "{values:?}");
        }
    }
}
