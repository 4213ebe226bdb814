//! Removes the secrets of a request from the texts of its response, because an endpoint may repeat them.

use std::cmp::Reverse;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Request, header};

use super::endpoint::encoded;

/// The form fields that contain secrets (RFC 6749, RFC 7523, RFC 8693 and AWS STS).
const SECRET_FIELDS: [&str; 5] = [
    "assertion",
    "client_secret",
    "refresh_token",
    "subject_token",
    "WebIdentityToken",
];
/// The headers whose values are known and useful in messages. Every other header may contain a secret.
const PUBLIC_HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("metadata"),
    HeaderName::from_static("metadata-flavor"),
    HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
    HeaderName::from_static("x-goog-user-project"),
];
/// A shorter secret is removed only where it is a whole word, because it may be part of an ordinary one.
const SHORTEST_PART: usize = 8;

/// The secrets of a request: longest first, because a secret may be part of another one.
#[derive(Default)]
pub(super) struct RequestSecrets(Vec<String>);

// === impl RequestSecrets ===

impl RequestSecrets {
    /// Collects the values of headers, the query, and the secret fields of a form.
    pub(super) fn of<B>(request: &Request<B>, fields: &[(&str, &str)]) -> Self {
        let fields = fields
            .iter()
            .filter(|(name, _)| SECRET_FIELDS.contains(name))
            .map(|(_, value)| (*value).to_owned());
        let mut secrets: Vec<String> = fields.collect();
        secrets.extend(request.uri().query().map(str::to_owned));
        for (name, value) in request.headers() {
            if !PUBLIC_HEADERS.contains(name) {
                add_value(&String::from_utf8_lossy(value.as_bytes()), &mut secrets);
            }
        }
        let encoded: Vec<String> = secrets.iter().map(|secret| encoded(secret)).collect();
        secrets.extend(encoded);
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_unstable_by(|a, b| (Reverse(a.len()), a).cmp(&(Reverse(b.len()), b)));
        secrets.dedup();
        Self(secrets)
    }

    /// Replaces the secrets in a text.
    pub(super) fn removed_from(&self, text: &str) -> String {
        let remove = |text: String, secret: &String| {
            if secret.len() < SHORTEST_PART {
                without_word(&text, secret)
            } else {
                text.replace(secret, "[…]")
            }
        };
        self.0.iter().fold(text.to_owned(), remove)
    }
}

/// Adds the value of a header and its secret parts: the text after the scheme (`Bearer`), the pair and the password of
/// `Basic`, and the items of a list (`Cookie`).
fn add_value(value: &str, secrets: &mut Vec<String>) {
    let value = value.trim();
    secrets.push(value.to_owned());
    if let Some((scheme, rest)) = value.split_once(' ') {
        let rest = rest.trim();
        secrets.push(rest.to_owned());
        let basic = scheme.eq_ignore_ascii_case("basic");
        let pair = basic.then(|| STANDARD.decode(rest).ok()).flatten();
        if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
            secrets.extend(pair.split_once(':').map(|(_, secret)| secret.to_owned()));
            secrets.push(pair);
        }
    }
    let parts = value.split([' ', ',', ';', '"']).flat_map(|part| {
        let after_name = part.split_once(['=', ':']).map(|(_, rest)| rest);
        [Some(part), after_name].into_iter().flatten()
    });
    let parts = parts.filter(|part| part.len() >= SHORTEST_PART);
    secrets.extend(parts.map(str::to_owned));
}

/// Replaces a word where no letter or digit is beside it.
fn without_word(text: &str, word: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(word) {
        let is_part = before.ends_with(char::is_alphanumeric)
            || before.is_empty() && result.ends_with(char::is_alphanumeric)
            || after.starts_with(char::is_alphanumeric);
        result.push_str(before);
        result.push_str(if is_part { word } else { "[…]" });
        rest = after;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("https://tokens.example/token?audience=x&code=y");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn shown(headers: &[(&str, &str)], text: &str) -> String {
        RequestSecrets::of(&request(headers), &[]).removed_from(text)
    }

    #[test]
    fn the_value_of_any_header_is_removed_from_what_the_server_repeats() {
        for (name, value, repeated) in [
            (
                "authorization",
                "Bearer ba0384ab5521",
                "Bearer ba0384ab5521",
            ),
            ("authorization", "Bearer ba0384ab5521", "ba0384ab5521"),
            ("authorization", "bearer  ba0384ab5521", "ba0384ab5521"),
            ("authorization", "ba0384ab5521", "ba0384ab5521"),
            (
                "authorization",
                "Basic dXNlcjpwYTU1dzByZA==",
                "dXNlcjpwYTU1dzByZA==",
            ),
            (
                "authorization",
                "Basic dXNlcjpwYTU1dzByZA==",
                "user:pa55w0rd",
            ),
            ("authorization", "Basic dXNlcjpwYTU1dzByZA==", "pa55w0rd"),
            ("authorization", "Basic YTpi", "YTpi"),
            ("x-api-key", "AIzaSyD4F6", "AIzaSyD4F6"),
            ("x-api-key", "k7", "k7"),
            ("x-api-key", "a/b+c=d", "a%2Fb%2Bc%3Dd"),
            ("x-aws-ec2-metadata-token", "AQAEAEmLhXk4", "AQAEAEmLhXk4"),
            ("cookie", "session=5521ba0384ab; other=x", "5521ba0384ab"),
        ] {
            let said = shown(&[(name, value)], &format!("bad: {repeated}, try again"));
            assert_eq!(said, "bad: […], try again", "{name}: {value}");
        }
        assert_eq!(shown(&[], "no /token?audience=x&code=y"), "no /token?[…]");
    }

    #[test]
    fn ordinary_words_of_the_server_stay() {
        let headers = [
            ("metadata", "true"),
            ("accept", "application/json"),
            ("x-goog-user-project", "project-1"),
            ("x-key", "at"),
        ];
        let text = "Metadata: true, not application/json; what about project-1?";
        assert_eq!(shown(&headers, text), text);
        assert_eq!(shown(&headers, "at at, atat é at"), "[…] […], atat é […]");
    }

    #[test]
    fn a_request_without_secrets_changes_no_text() {
        let request = Request::get("/").body(()).unwrap();
        assert_eq!(request.headers(), &HeaderMap::new());
        let secrets = RequestSecrets::of(&request, &[("grant_type", "refresh_token")]);
        let text = "refresh_token is not permitted";
        assert_eq!(secrets.removed_from(text), text);
    }
}
