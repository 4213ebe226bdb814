//! An explanation's lines: a key, and its text in lines of a terminal's width.

use std::fmt;

/// Columns of a line, but where one word is longer.
const WIDTH: usize = 100;

/// Columns of the key.
const KEY: usize = 12;

/// Writes `text` beside its key, broken between words.
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

/// The sentences of a text. A URL holds no space, so a full stop before one ends a sentence.
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
