//! `--proxy-auth`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// Returns the accepted value of `Proxy-Authorization` for `USER:PASSWORD` (RFC 7617). `random` is the meaning of that
/// word, if it has one.
///
/// No message repeats the text, because it is a password, or a part of one.
pub(in crate::config) fn expected(text: &str, random: Option<&str>) -> Result<HeaderValue, String> {
    let text = match text {
        "random" => random.ok_or(
            "random is for exec, which passes the password to its command: write USER:PASSWORD",
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
