//! Responses of Identity-Aware Proxy, which accepts ID tokens for an OAuth client id only.

use std::borrow::Cow;

use http::{HeaderName, Response, Uri, header};

/// Marks responses that Identity-Aware Proxy generated.
const IAP_GENERATED: HeaderName = HeaderName::from_static("x-goog-iap-generated-response");

/// The host of the sign-in page to which Identity-Aware Proxy redirects.
const SIGN_IN: &str = "accounts.google.com";

/// Returns whether Identity-Aware Proxy generated the response, or it redirects to Google's sign-in page.
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

/// Returns whether `https://HOST…` or `//HOST…` is at the host of Google's sign-in page.
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
