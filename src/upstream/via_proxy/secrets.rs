//! The credentials of `--upstream-proxy` in every form in which a proxy may send them back.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The headers that describe the body of a response. They are never removed.
const KEPT: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::TRANSFER_ENCODING,
];

/// The texts that must not appear in messages or headers, in lower case.
#[derive(Default)]
pub(super) struct ProxySecrets {
    /// The password, and the credentials as they were sent.
    hidden: Vec<String>,
    /// The user, which may be any word.
    user: Vec<String>,
}

// === impl ProxySecrets ===

impl ProxySecrets {
    /// Returns the secrets of a `Proxy-Authorization`.
    pub(super) fn of(authorization: Option<&HeaderValue>) -> Self {
        let encoded = authorization
            .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
            .unwrap_or_default()
            .trim_end_matches('=');
        let pair = STANDARD_NO_PAD.decode(encoded).unwrap_or_default();
        let mut parts = pair.splitn(2, |byte| *byte == b':');
        let user = parts.next().unwrap_or_default();
        let password = parts.next().unwrap_or_default();
        let mut hidden = forms(password);
        hidden.extend(forms(&pair));
        Self {
            hidden,
            user: forms(user),
        }
    }

    /// Returns whether a text contains one of them. The user counts only as a whole word.
    pub(super) fn are_in(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.hidden.iter().any(|secret| text.contains(&**secret))
            || self.user.iter().any(|user| has_word(&text, user))
    }

    /// Removes the headers of a response that may be the proxy's own and contain one of them as a whole word. The user
    /// may be a word of the origin's, so it counts in an error only.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap, is_error: bool) {
        let is_secret = |value: &HeaderValue| {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            self.hidden.iter().any(|secret| has_word(&value, secret))
                || is_error && self.user.iter().any(|user| has_word(&value, user))
        };
        let found: Vec<HeaderName> = headers
            .iter()
            .filter(|(name, value)| !KEPT.contains(name) && is_secret(value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in found {
            headers.remove(name);
        }
    }
}

/// Returns a text as it is, percent-encoded, form-encoded, and in both alphabets of base64. Padding is omitted, so that
/// both match with and without it.
fn forms(secret: &[u8]) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(secret);
    let escaped = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
    let mut forms = vec![
        escaped.replace("%20", "+"),
        escaped,
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        text.into_owned(),
    ];
    for form in &mut forms {
        form.make_ascii_lowercase();
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Returns whether a text contains the word with word boundaries on both sides.
fn has_word(text: &str, word: &str) -> bool {
    let continues = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = rest.strip_prefix(word).unwrap_or_default();
        !continues(before.chars().next_back()) && !continues(after.chars().next())
    })
}
