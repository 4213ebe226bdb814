//! What is wrong with a configuration, where, and what would be right.

use std::fmt::{self, Write};

/// One thing that is wrong: `PLACE: MESSAGE`, always one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `flag --proxy`, `environment SIDENTITY_PROXY`, or `FILE:LINE:COLUMN: field`.
    pub place: String,
    /// What would be right. Never a password, nor a URL with user-info.
    pub message: String,
}

// === impl Diagnostic ===

impl Diagnostic {
    /// A problem at this place.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, &self.place)?;
        f.write_str(": ")?;
        write_line(f, &self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// File names and values are anybody's text: a line break in one must not make a second line of the log.
fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// A value shown back: in quotes, and short.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().nth(LONGEST).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}…")
}

/// [`quote`], but nothing of a text that holds an `@`: what stands before it may be a password.
pub(super) fn quote_unless_secret(text: &str) -> Option<String> {
    let at_sign = text.contains('@') || text.to_ascii_lowercase().contains("%40");
    (!at_sign).then(|| quote(text))
}

/// `: did you mean X?` where one of the candidates is near, else nothing.
pub(super) fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, candidates, |candidate| candidate.len().div_ceil(4))
        .map(|candidate| format!(": did you mean {candidate}?"))
        .unwrap_or_default()
}

/// The candidate that the fewest edits make of `text`, if they are at most `edits` of it.
pub(super) fn nearest<T: AsRef<str> + Ord>(
    text: &str,
    candidates: impl IntoIterator<Item = T>,
    edits: impl Fn(&str) -> usize,
) -> Option<T> {
    // The distance is quadratic in the length, and no name is that long.
    if text.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(text, candidate.as_ref());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= edits(candidate.as_ref()))
        .min()
        .map(|(_, candidate)| candidate)
}
