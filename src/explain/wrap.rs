//! Writes the lines of an explanation: a key, and its text wrapped to a terminal's width.

use std::fmt;

/// The maximum number of columns of a line. A longer word stays whole.
const WIDTH: usize = 100;

/// The number of columns of the key.
const KEY: usize = 12;

/// Writes `text` beside its key and breaks lines between words.
pub(super) fn write(f: &mut fmt::Formatter<'_>, key: &str, text: &str) -> fmt::Result {
    let mut key = key;
    let mut line = String::new();
    for word in text.split(' ') {
        let columns = KEY + 1 + line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && columns > WIDTH {
            writeln!(f, "{key:<KEY$} {line}")?;
            key = "";
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(f, "{key:<KEY$} {line}")
}

/// Splits a text into sentences. A full stop before a space ends a sentence, because a URL has no space.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(". ").map_or(rest.len(), |stop| stop + 1);
        let (sentence, after) = rest.split_at(end);
        rest = after.trim_start();
        Some(sentence)
    })
}
