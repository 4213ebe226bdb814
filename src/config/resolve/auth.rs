//! `--proxy-auth`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// `USER:PASSWORD` as the value of `Proxy-Authorization` that is let in (RFC 7617).
///
/// No message shows the text: it is a password, or a part of one.
pub(crate) fn expected(text: &str) -> Result<HeaderValue, String> {
    if text == "random" {
        return Err(
            "random is for a command that hands the password to the app: write USER:PASSWORD"
                .to_owned(),
        );
    }
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
