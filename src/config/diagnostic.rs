//! Errors of a configuration: the place, the wrong value, and the correction.

use std::fmt::{self, Write};

use crate::suggestion::nearest;

/// One error of a configuration. It displays as one line, `PLACE: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `flag --proxy`, `environment SIDENTITY_PROXY`, or `FILE:LINE:COLUMN: field`.
    pub place: String,
    /// The wrong value and the correction. It never has a password or a URL with user-info.
    pub message: String,
}

// === impl Diagnostic ===

impl Diagnostic {
    /// Returns a diagnostic for this place.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.place)?;
        f.write_str(": ")?;
        write_escaped(f, &self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Escapes control characters: a line break in a file name or value must not start a second line of the log.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// Quotes a value for a message, cut after 80 characters.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().nth(LONGEST).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}…")
}

/// As [`quote`], but `None` for a text with an `@`: the part before it may be a password.
pub(super) fn quote_unless_secret(text: &str) -> Option<String> {
    let at_sign = text.contains('@') || text.to_ascii_lowercase().contains("%40");
    (!at_sign).then(|| quote(text))
}

/// Returns `: did you mean X?` if a candidate is similar to `text`, else an empty text.
pub(super) fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, candidates, |candidate| candidate.len().div_ceil(4))
        .map(|candidate| format!(": did you mean {candidate}?"))
        .unwrap_or_default()
}
