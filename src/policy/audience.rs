//! Derives the audience of an ID token from the host.

use std::sync::Arc;

use super::builtin::{FUNCTIONS, RUN_APP, is_under};
use super::strictest::PathView;
use crate::destination::{Destination, Host};

/// The kind of service behind a host, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    CloudRun,
    Functions,
    Other,
}

/// Why a function's URL has no audience.
pub(super) const NO_FUNCTION: &str = "the function's name, the first segment of the path, is part of the audience, and this path has none; write the \
     URL with it, or a rule with audience=";
pub(super) const NOT_A_FUNCTION: &str = "the first segment of the path is part of the audience and must be a function's name (a letter, then up to 62 \
     letters, digits, `-` or `_`), and this one is not; a rule with audience= helps";

pub(super) const SEVERAL_FUNCTIONS: &str = "the first segment of the path is part of the audience, and servers read this path in different ways (escapes, `;`, \
     `\\`, `//` or dot segments), so that it has no one first segment; write the path without them";

impl HostKind {
    pub(crate) fn of(host: &Host) -> Self {
        match host.name() {
            Some(name) if is_under(name, RUN_APP) => Self::CloudRun,
            Some(name) if is_under(name, FUNCTIONS) => Self::Functions,
            _ => Self::Other,
        }
    }
}

/// Returns the audience of an ID token for `destination` if no rule names one. It never contains a port.
///
/// # Errors
///
/// The reason why the destination has no audience.
pub(super) fn audience(
    destination: &Destination,
    path: PathView<'_>,
) -> Result<Arc<str>, &'static str> {
    let host = &destination.origin.host;
    Ok(match host.name() {
        Some(name) if is_under(name, RUN_APP) => {
            let service = tagged(name).map_or(name, |(_, service)| service);
            ["https://", service].concat().into()
        }
        Some(name) if is_under(name, FUNCTIONS) => {
            let function = function(path.written)?;
            if let Some((_, reading)) = path.reading
                && self::function(reading) != Ok(function)
            {
                return Err(SEVERAL_FUNCTIONS);
            }
            ["https://", name, "/", function].concat().into()
        }
        _ => format!("https://{host}").into(),
    })
}

/// Splits a Cloud Run host with a revision's tag: `TAG---SERVICE…` gives (`TAG`, `SERVICE…`).
///
/// Returns `None` unless the first label has exactly one `---` with text on both sides. A longer run of hyphens could
/// be split in more than one place.
pub(crate) fn tagged(name: &str) -> Option<(&str, &str)> {
    let label = name.split('.').next()?;
    let tag_ends = label.find("---")?;
    let (tag, service) = name.split_once("---")?;
    let unique = label.rfind("---") == Some(tag_ends);
    (unique && !tag.is_empty() && !service.starts_with('.')).then_some((tag, service))
}

/// Returns whether the audience is an OAuth client id, which IAP expects.
pub(crate) fn is_client_id(audience: &str) -> bool {
    is_under(audience, "apps.googleusercontent.com")
}

/// Returns the first segment of the path as the app wrote it, because the path is sent so.
fn function(path: &str) -> Result<&str, &'static str> {
    let segment = path.trim_start_matches('/').split('/').next();
    let segment = segment.filter(|_| !path.starts_with("//")).unwrap_or("");
    if segment.is_empty() {
        return Err(NO_FUNCTION);
    }
    let valid = segment.len() <= 63
        && segment.starts_with(|first: char| first.is_ascii_alphabetic())
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if valid {
        Ok(segment)
    } else {
        Err(NOT_A_FUNCTION)
    }
}

#[cfg(test)]
mod tests;
