//! Extracts a subject token from the content of a file or a response.

use serde_json::Value;

use crate::credentials::TokenFormat;

/// The reason that a content is not a subject token. The message repeats no part of the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is empty")]
    Empty,
    #[error("it is not text in UTF-8")]
    Utf8,
    #[error("it is not a JSON object, as subject_token_field_name requires")]
    Json,
    #[error("its JSON object has no text in the field {0:?}, which subject_token_field_name names")]
    Field(Box<str>),
    #[error("it contains white space or control characters, so it is not a token")]
    Characters,
}

/// Parses the token. Removes white space around it, because editors and `echo` end a file with a line break.
pub(super) fn read(format: &TokenFormat, content: &[u8]) -> Result<String, Unreadable> {
    let text = str::from_utf8(content).map_err(|_| Unreadable::Utf8)?;
    let token = match format {
        TokenFormat::Text => text.trim().to_owned(),
        TokenFormat::Json { field } => {
            let Ok(Value::Object(mut object)) = serde_json::from_str(text) else {
                return Err(if text.trim().is_empty() {
                    Unreadable::Empty
                } else {
                    Unreadable::Json
                });
            };
            match object.remove(&**field) {
                Some(Value::String(token)) => token.trim().to_owned(),
                _ => return Err(Unreadable::Field(field.clone())),
            }
        }
    };
    if token.is_empty() {
        return Err(Unreadable::Empty);
    }
    if token.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Unreadable::Characters);
    }
    Ok(token)
}

/// Parses any bytes in both formats. A token has no white space, and an error repeats no content.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_contents(content: &[u8]) {
    let field = "token".into();
    for format in [TokenFormat::Text, TokenFormat::Json { field }] {
        match read(&format, content) {
            Ok(token) => assert!(!token.is_empty() && !token.contains(char::is_whitespace)),
            Err(error) => assert!(error.to_string().is_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> TokenFormat {
        TokenFormat::Json {
            field: "access_token".into(),
        }
    }

    #[test]
    fn a_subject_token_is_a_text_or_a_field_of_a_json_object() {
        for (format, content) in [
            (TokenFormat::Text, "T"),
            (TokenFormat::Text, "\u{a0} T\r\n"),
            (json(), r#"{"access_token":"T","id_token":"U"}"#),
            (json(), " {\"access_token\": \"T\\n\"}\n"),
        ] {
            assert_eq!(
                read(&format, content.as_bytes()).as_deref(),
                Ok("T"),
                "{content}"
            );
        }
    }

    #[test]
    fn content_without_a_token_is_an_error_with_the_reason() {
        let field = || Unreadable::Field("access_token".into());
        for (format, content, expected) in [
            (TokenFormat::Text, &b""[..], Unreadable::Empty),
            (TokenFormat::Text, b" \n", Unreadable::Empty),
            (TokenFormat::Text, b"\xff\xfe", Unreadable::Utf8),
            (TokenFormat::Text, b"two words", Unreadable::Characters),
            (TokenFormat::Text, b"a\0b", Unreadable::Characters),
            (json(), b"", Unreadable::Empty),
            (json(), b"T", Unreadable::Json),
            (json(), b"[\"access_token\"]", Unreadable::Json),
            (json(), b"{\"access_token\":\"T\"", Unreadable::Json),
            (json(), b"{}", field()),
            (json(), b"{\"access_token\":7}", field()),
            (json(), b"{\"access_token\":\"\"}", Unreadable::Empty),
        ] {
            assert_eq!(read(&format, content), Err(expected), "{content:?}");
        }
    }
}
