//! Texts of others in messages: short, printable, and never a token.

use crate::policy::TokenKind;

/// The most that a message shows of an audience or a server's words.
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

/// Returns the words of an error's body. `None` if there are none, or if they could hold a token.
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

/// Returns a text without words that begin as tokens do, or that are too long for a word.
pub(super) fn without_tokens(text: &str) -> String {
    let is_token = |word: &str| is_secretive(word.trim_end()) && word.is_ascii();
    text.split_inclusive(char::is_whitespace)
        .map(|word| if is_token(word) { "[…] " } else { word })
        .collect()
}

/// The first characters of a text, without those that could disturb a terminal or a log.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

/// The title of an HTML page.
fn title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0)
}

/// No word of a sentence is that long; access tokens, JWTs, refresh tokens and client secrets begin like this.
fn is_secretive(word: &str) -> bool {
    word.len() > 64
        || ["ya29.", "eyJ", "1//", "GOCSPX-"]
            .iter()
            .any(|start| word.contains(start))
}

#[cfg(test)]
mod tests;
