//! Parses `Retry-After`.

use std::time::{Duration, SystemTime};

/// Returns the time that a `Retry-After` asks for: seconds or a date (RFC 9110, 10.2.3). A number too large for 64 bits
/// is the largest.
pub(crate) fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
