//! Answers of Identity-Aware Proxy, which stands before a service and takes ID tokens for an OAuth client id only.

use std::borrow::Cow;

use http::{HeaderName, Response, Uri, header};

/// Identity-Aware Proxy marks the answers that it makes itself.
const IAP_GENERATED: HeaderName = HeaderName::from_static("x-goog-iap-generated-response");

/// Where Identity-Aware Proxy sends a browser that it does not know.
const SIGN_IN: &str = "accounts.google.com";

/// Identity-Aware Proxy made the response, or it leads to the page where Google's users sign in.
pub(crate) fn is_of_iap<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let marked = headers
        .get(IAP_GENERATED)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let leads_to_sign_in = || {
        headers
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok())
            .is_some_and(is_sign_in)
    };
    marked || (response.status().is_redirection() && leads_to_sign_in())
}

/// Whether `https://HOST…` or `//HOST…` leads to Google's sign-in.
fn is_sign_in(location: &str) -> bool {
    let absolute = match location.strip_prefix("//") {
        Some(rest) => Cow::Owned(format!("https://{rest}")),
        None => Cow::Borrowed(location),
    };
    let without_fragment = absolute.split('#').next().unwrap_or_default();
    let uri = without_fragment.parse::<Uri>().ok();
    uri.as_ref()
        .and_then(Uri::host)
        .is_some_and(|host| host.eq_ignore_ascii_case(SIGN_IN))
}
