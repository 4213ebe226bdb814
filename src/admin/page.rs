//! The status page: one HTML file with its style and script, so that it works without a network.
//!
//! Its content security policy permits only the style and the script by their digests, and requests to this origin.
//! Text from an upstream or an app is never parsed as markup.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = concat!(include_str!("page/charts.js"), include_str!("page/page.js"));

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// The page. It is the same for everyone, because its live data comes from `/status`.
#[derive(Debug)]
pub(super) struct Page {
    /// The body.
    pub(super) html: Bytes,
    csp: HeaderValue,
}

/// Built at the first request.
pub(super) static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

/// Replaces the only placeholder of that name.
fn replace_placeholder(html: &str, place: &str, with: &str) -> String {
    match html.split_once(place) {
        Some((before, after)) => [before, with, after].concat(),
        None => html.to_owned(),
    }
}

fn hash(text: &str) -> String {
    STANDARD.encode(digest(&SHA256, text.as_bytes()))
}

// === impl Page ===

impl Page {
    fn new() -> Self {
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            hash(CSS),
            hash(JS)
        );
        Self {
            html: replace_placeholder(&replace_placeholder(HTML, "{css}", CSS), "{js}", JS).into(),
            // With an empty policy, nothing in the page would run. A test checks that it is not empty.
            csp: HeaderValue::try_from(policy)
                .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        }
    }

    /// Adds the headers that restrict the page.
    pub(super) fn with_security_headers<B>(&self, mut response: Response<B>) -> Response<B> {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.csp.clone());
        for (name, value) in [
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (
                PERMISSIONS_POLICY,
                "camera=(), geolocation=(), microphone=()",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html() -> &'static str {
        std::str::from_utf8(&PAGE.html).unwrap()
    }

    /// Returns the text between the only tags of this name.
    fn inside(name: &str) -> &'static str {
        let html = html();
        let (before, rest) = html.split_once(&format!("<{name}>")).unwrap();
        let (inside, after) = rest.split_once(&format!("</{name}>")).unwrap();
        assert!(!before.contains(&format!("<{name}")) && !after.contains(&format!("<{name}")));
        inside
    }

    #[test]
    fn the_content_security_policy_allows_only_the_pages_style_and_script() {
        assert_eq!(inside("style"), CSS);
        assert_eq!(inside("script"), JS);
        let policy = PAGE.csp.to_str().unwrap();
        for text in [CSS, JS] {
            assert!(policy.contains(&format!("'sha256-{}'", hash(text))));
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn the_page_is_small_and_loads_nothing_from_other_hosts() {
        assert!(PAGE.html.len() < 40 * 1024, "{} bytes", PAGE.html.len());
        for address in html().match_indices("://").map(|(at, _)| {
            let before = html().get(..at).unwrap();
            let start = before.rfind(|c: char| !c.is_ascii_alphabetic()).unwrap() + 1;
            html().get(start..).unwrap().get(..24).unwrap()
        }) {
            // A namespace, and example URLs.
            assert!(
                [
                    "http://www.w3.org/",
                    "https://…",
                    "https://service-",
                    "https://$"
                ]
                .iter()
                .any(|known| address.starts_with(known) || known.starts_with(address)),
                "{address}"
            );
        }
    }

    /// Details may come from hostile peers, so they are text and never parsed.
    #[test]
    fn text_is_never_rendered_as_markup() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
            "setHTML",
            "javascript:",
        ] {
            assert!(!html().contains(way), "{way}");
        }
        assert!(!HTML.contains(" style=") && !HTML.contains(" onclick"));
    }
}
