//! Durations.

use std::time::Duration;

use super::super::diagnostic::quote;

/// The longest duration. Adding it to the current time cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Parses `5s`, `1m30s`, `500ms` and `0s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} has no unit: write {text}s", quote(text)));
    }
    let time = humantime::parse_duration(text).map_err(|_| {
        format!(
            "{} is not a duration: write 5s, 500ms or 1m30s",
            quote(text)
        )
    })?;
    if time > LONGEST {
        return Err(format!("{} is too long: at most a year", quote(text)));
    }
    Ok(time)
}

/// Parses a duration that is not zero.
pub(in crate::config) fn positive(text: &str) -> Result<Duration, String> {
    // A zero without a unit would otherwise be advised to have one.
    let is_zero = !text.trim().is_empty() && text.trim().bytes().all(|b| b == b'0');
    let time = match is_zero {
        true => Duration::ZERO,
        false => parse_duration(text)?,
    };
    if time.is_zero() {
        return Err(format!(
            "{} must be greater than zero, like 5s",
            quote(text)
        ));
    }
    Ok(time)
}

/// Prints a duration without the spaces of humantime's form: `1m30s`.
pub(crate) fn printed(time: &Duration) -> String {
    if time.is_zero() {
        return "0s".to_owned();
    }
    humantime::format_duration(*time)
        .to_string()
        .replace(' ', "")
}
