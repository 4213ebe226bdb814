//! Lengths of time.

use std::time::Duration;

use super::super::diagnostic::quote;

/// Clocks overflow somewhere; nobody waits longer than this.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `5s`, `1m30s`, `500ms`; `0s` too.
pub(crate) fn any(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} has no unit: write {text}s", quote(text)));
    }
    let time = humantime::parse_duration(text)
        .map_err(|_| format!("{} is no length of time: write 5s or 1m30s", quote(text)))?;
    if time > LONGEST {
        return Err(format!("{} is too long: at most a year", quote(text)));
    }
    Ok(time)
}

/// More than nothing.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let time = any(text)?;
    if time.is_zero() {
        return Err(format!(
            "{} must be more than nothing, like 5s",
            quote(text)
        ));
    }
    Ok(time)
}
