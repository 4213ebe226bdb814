//! Quotes foreign texts in messages: short, printable, and without tokens.

use crate::credentials::TOKEN_BEGINNINGS;
use crate::policy::TokenKind;

/// The maximum length of an audience or a server's text in a message.
const SHOWN: usize = 200;

/// Names a token in a message: `an ID token for https://example`.
pub(super) fn token(kind: &TokenKind) -> String {
    match kind {
        TokenKind::Access { scopes } if scopes.is_empty() => "an access token".to_owned(),
        TokenKind::Access { scopes } => {
            format!("an access token for {}", printable(&scopes.join(" ")))
        }
        TokenKind::Id { audience } => format!("an ID token for {}", printable(audience)),
        TokenKind::Jwt { audience } => format!("a signed JWT for {}", printable(audience)),
    }
}

/// Returns the text of an error body. Returns `None` if there is none, or if it could contain a token.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = title(&text).unwrap_or(&text);
    if ["access_token", "id_token"]
        .iter()
        .any(|name| text.contains(name))
    {
        return None;
    }
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if is_secretive(word) { "[…]" } else { word })
        .collect();
    let words = printable(&words.join(" "));
    (!words.is_empty()).then_some(words)
}

/// Removes words that begin like tokens or are too long for words.
pub(super) fn without_tokens(text: &str) -> String {
    let is_token = |word: &str| is_secretive(word.trim_end()) && word.is_ascii();
    text.split_inclusive(char::is_whitespace)
        .map(|word| if is_token(word) { "[…] " } else { word })
        .collect()
}

/// Returns the first characters of a text, without those that could disturb a terminal or a log.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

/// Returns the title of an HTML page.
fn title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0)
}

/// Returns whether a word could be a secret: it contains the beginning of a known kind of token, or it is long and
/// looks random. Links to Google's console are not secret.
fn is_secretive(word: &str) -> bool {
    let has = |class: fn(&u8) -> bool| word.as_bytes().iter().any(class);
    let is_random = word.len() >= 24
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit);
    let is_link = word.starts_with("https://console.developers.google.com/")
        || word.starts_with("https://console.cloud.google.com/");
    let has_token = TOKEN_BEGINNINGS.iter().any(|start| word.contains(start));
    has_token || !is_link && (word.len() > 64 || is_random)
}

#[cfg(test)]
mod tests;
