//! `--proxy-auth`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::super::raw::RawConfig;

/// `USER:PASSWORD` as the value of `Proxy-Authorization` that is let in (RFC 7617).
///
/// No message shows the text: it is a password, or a part of one.
pub(crate) fn expected(text: &str, raw: &RawConfig) -> Result<HeaderValue, String> {
    let text = match text {
        "random" => raw.random_auth.as_deref().ok_or(
            "random is for exec, which hands the password to its command; here nobody would know it: write USER:PASSWORD",
        )?,
        text => text,
    };
    let whole = text
        .split_once(':')
        .is_some_and(|(user, password)| !user.is_empty() && !password.is_empty());
    if !whole || text.chars().any(char::is_control) {
        return Err("write USER:PASSWORD or off".to_owned());
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text)))
        .map_err(|_| "write USER:PASSWORD or off")?;
    value.set_sensitive(true);
    Ok(value)
}
