//! Escapes hostile text in a log line.

use std::fmt::{self, Write};

use crate::diagnostics::is_hidden;

/// The maximum length of a value in bytes. Longer values are cut, because log collectors limit the size of a line.
pub(super) const LONGEST: usize = 8 * 1024;

/// Appends text, escaped so that it cannot end the line or its string, or send control sequences to a terminal.
///
/// The escapes are those of JSON (RFC 8259, 7), in both formats.
pub(super) struct Printable<'a> {
    line: &'a mut String,
    quoted: bool,
    left: usize,
    cut: bool,
}

// === impl Printable ===

impl<'a> Printable<'a> {
    /// Appends text inside double quotes.
    pub(super) fn quoted(line: &'a mut String) -> Self {
        Self {
            line,
            quoted: true,
            left: LONGEST,
            cut: false,
        }
    }

    /// Appends text without quotes.
    pub(super) fn bare(line: &'a mut String) -> Self {
        Self {
            quoted: false,
            ..Self::quoted(line)
        }
    }
}

impl Write for Printable<'_> {
    /// Fails once the text is cut, so that the writer stops.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.cut {
                return Err(fmt::Error);
            }
            if c.len_utf8() > self.left {
                self.cut = true;
                self.line.push('…');
                return Err(fmt::Error);
            }
            self.left -= c.len_utf8();
            match c {
                '"' | '\\' if self.quoted => self.line.extend(['\\', c]),
                '\n' => self.line.push_str("\\n"),
                '\r' => self.line.push_str("\\r"),
                '\t' => self.line.push_str("\\t"),
                c if is_hidden(c) => write!(self.line, "\\u{:04x}", u32::from(c))?,
                c => self.line.push(c),
            }
        }
        Ok(())
    }
}
