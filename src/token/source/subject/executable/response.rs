//! Parses the output of an executable, or its output file. Errors never repeat the token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Number;

use crate::token::source::message::without_tokens;

/// The newest supported version of the format.
const VERSION: f64 = 1.0;
/// The maximum length of the executable's own message in ours.
const LONGEST_MESSAGE: usize = 200;

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SAML: &str = "urn:ietf:params:oauth:token-type:saml2";

/// A subject token, and its expiry if the executable reports it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SubjectToken {
    pub(super) token: String,
    pub(super) expires: Option<SystemTime>,
}

/// The reason that an output has no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidResponse {
    #[error("its output is not a JSON object of the expected form")]
    Json,
    #[error("its output has no \"{0}\"")]
    Missing(&'static str),
    #[error("its output has version {0}, but only version 1 is supported")]
    Version(Number),
    #[error("it reported an error: code {code:?}, message {message:?}")]
    Unsuccessful { code: String, message: String },
    #[error("its output has an expiration_time that is not a time")]
    ExpirationTime,
    #[error("the token that it returned is expired")]
    Expired,
    #[error("its output has the unsupported token_type {0:?}")]
    TokenType(String),
    #[error("the token in its output is empty or contains control characters")]
    Token,
}

#[derive(Deserialize)]
struct ExecutableResponse {
    version: Option<Number>,
    success: Option<bool>,
    token_type: Option<String>,
    id_token: Option<String>,
    saml_response: Option<String>,
    expiration_time: Option<Number>,
    code: Option<Text>,
    message: Option<Text>,
}

/// A text, or a number instead of a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(Number),
}

// === impl SubjectToken ===

impl SubjectToken {
    /// Parses an output at the time `now`.
    pub(super) fn parse(answer: &[u8], now: SystemTime) -> Result<Self, InvalidResponse> {
        let text = str::from_utf8(answer).map_err(|_| InvalidResponse::Json)?;
        let text = text.trim_ascii();
        if !text.starts_with('{') {
            return Err(InvalidResponse::Json);
        }
        let answer: ExecutableResponse =
            serde_json::from_str(text).map_err(|_| InvalidResponse::Json)?;
        let version = answer.version.ok_or(InvalidResponse::Missing("version"))?;
        if version.as_f64() != Some(VERSION) {
            return Err(InvalidResponse::Version(version));
        }
        if !answer.success.ok_or(InvalidResponse::Missing("success"))? {
            return Err(InvalidResponse::Unsuccessful {
                code: answer
                    .code
                    .ok_or(InvalidResponse::Missing("code"))?
                    .shortened(),
                message: answer
                    .message
                    .ok_or(InvalidResponse::Missing("message"))?
                    .shortened(),
            });
        }
        let expires = match answer.expiration_time {
            Some(number) => Some(time(&number).ok_or(InvalidResponse::ExpirationTime)?),
            None => None,
        };
        if expires.is_some_and(|expires| expires <= now) {
            return Err(InvalidResponse::Expired);
        }
        let kind = answer
            .token_type
            .ok_or(InvalidResponse::Missing("token_type"))?;
        let token = match &*kind {
            JWT | ID_TOKEN => answer
                .id_token
                .ok_or(InvalidResponse::Missing("id_token"))?,
            SAML => answer
                .saml_response
                .ok_or(InvalidResponse::Missing("saml_response"))?,
            _ => return Err(InvalidResponse::TokenType(shortened(&kind))),
        };
        if token.is_empty() || token.chars().any(char::is_control) {
            return Err(InvalidResponse::Token);
        }
        Ok(Self { token, expires })
    }
}

impl std::fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubjectToken")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

// === impl Text ===

impl Text {
    fn shortened(&self) -> String {
        match self {
            // The program may repeat a token that was refused.
            Self::Text(text) => shortened(&without_tokens(text)),
            Self::Number(number) => number.to_string(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn time(seconds: &Number) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds.as_f64()?).ok()?;
    UNIX_EPOCH.checked_add(since)
}

/// Parses any bytes as an output. It must not panic, return an expired or empty token, or repeat a token in an error.
#[cfg(any(fuzzing, test))]
pub(in crate::token::source::subject) fn fuzz_executable_answer(answer: &[u8]) {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    match SubjectToken::parse(answer, now) {
        Ok(issued) => {
            assert!(!issued.token.is_empty());
            assert!(issued.expires.is_none_or(|expires| expires > now));
        }
        Err(error) => {
            assert!(error.to_string().chars().count() < 64 + 4 * 2 * 10 * LONGEST_MESSAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000)
    }

    fn parse(answer: &str) -> Result<SubjectToken, InvalidResponse> {
        SubjectToken::parse(answer.as_bytes(), now())
    }

    #[test]
    fn a_token_is_read_from_the_field_of_its_type() {
        for (kind, field) in [
            (JWT, "id_token"),
            (ID_TOKEN, "id_token"),
            (SAML, "saml_response"),
        ] {
            let answer = format!(
                r#" {{"version":1,"success":true,"token_type":"{kind}","{field}":"SECRET","expiration_time":1001,"other":[]}}
"#
            );
            let issued = parse(&answer).unwrap();
            assert_eq!(issued.token, "SECRET");
            assert_eq!(issued.expires, Some(now() + Duration::from_secs(1)));
            assert!(!format!("{issued:?}").contains("SECRET"), "{issued:?}");
        }
        let answer =
            format!(r#"{{"version":1,"success":true,"token_type":"{JWT}","id_token":"T"}}"#);
        assert_eq!(parse(&answer).unwrap().expires, None);
    }

    #[test]
    fn an_answer_without_a_token_is_an_error_with_the_reason() {
        let missing = InvalidResponse::Missing;
        for (answer, expected) in [
            ("", InvalidResponse::Json),
            ("junk", InvalidResponse::Json),
            ("[1]", InvalidResponse::Json),
            (r#"{"version":"1"}"#, InvalidResponse::Json),
            (r#"{"success":true}"#, missing("version")),
            (
                r#"{"version":2,"success":true}"#,
                InvalidResponse::Version(2.into()),
            ),
            (
                r#"{"version":0,"success":true}"#,
                InvalidResponse::Version(0.into()),
            ),
            (r#"{"version":1}"#, missing("success")),
            (
                r#"{"version":1,"success":false,"message":"no"}"#,
                missing("code"),
            ),
            (
                r#"{"version":1,"success":false,"code":"401"}"#,
                missing("message"),
            ),
            (
                r#"{"version":1,"success":false,"code":401,"message":"Caller not authorized.\n"}"#,
                InvalidResponse::Unsuccessful {
                    code: "401".into(),
                    message: "Caller not authorized.\n".into(),
                },
            ),
            (
                r#"{"version":1,"success":true,"id_token":"T"}"#,
                missing("token_type"),
            ),
            (
                r#"{"version":1,"success":true,"token_type":"x","id_token":"T"}"#,
                InvalidResponse::TokenType("x".into()),
            ),
            (
                r#"{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:jwt"}"#,
                missing("id_token"),
            ),
            (
                r#"{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:saml2","id_token":"T"}"#,
                missing("saml_response"),
            ),
            (
                r#"{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:jwt","id_token":""}"#,
                InvalidResponse::Token,
            ),
            (
                r#"{"version":1,"success":true,"expiration_time":1000,"id_token":"T"}"#,
                InvalidResponse::Expired,
            ),
            (
                r#"{"version":1,"success":true,"expiration_time":-1,"id_token":"T"}"#,
                InvalidResponse::ExpirationTime,
            ),
            (
                r#"{"version":1,"success":true,"expiration_time":"1","id_token":"T"}"#,
                InvalidResponse::Json,
            ),
        ] {
            assert_eq!(parse(answer), Err(expected.clone()), "{answer}");
            fuzz_executable_answer(answer.as_bytes());
        }
    }

    #[test]
    fn a_token_in_the_message_of_a_program_is_removed() {
        let answer = r#"{"version":1,"success":false,"code":"401","message":"cannot use eyJhbGciOiJSUzI1NiJ9.eyJh.c2ln today"}"#;
        let error = SubjectToken::parse(answer.as_bytes(), SystemTime::now()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot use […] today"), "{text}");
    }

    #[test]
    fn a_long_message_is_shortened_and_control_characters_are_escaped() {
        let message = "é".repeat(1_000);
        let answer =
            format!(r#"{{"version":1,"success":false,"code":"a\nb","message":"{message}"}}"#);
        let error = parse(&answer).unwrap_err().to_string();
        assert!(error.chars().count() < 300, "{error}");
        assert!(error.contains(r#"code "a\nb""#), "{error}");
    }
}
