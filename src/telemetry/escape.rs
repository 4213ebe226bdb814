//! Hostile text in a log line.

use std::fmt::{self, Write};

use crate::diagnostics::is_hidden;

/// A value that is longer, in bytes, is cut: a line must fit where it is collected, whatever the app sends.
pub(super) const LONGEST: usize = 8 * 1024;

/// Appends text so that none of it ends the line or the string it stands in, nor speaks to a terminal.
///
/// Escapes are those of JSON (RFC 8259, 7), in both formats.
pub(super) struct Printable<'a> {
    line: &'a mut String,
    quoted: bool,
    left: usize,
    cut: bool,
}

// === impl Printable ===

impl<'a> Printable<'a> {
    /// The text stands in double quotes.
    pub(super) fn quoted(line: &'a mut String) -> Self {
        Self {
            line,
            quoted: true,
            left: LONGEST,
            cut: false,
        }
    }

    /// The text stands for itself.
    pub(super) fn bare(line: &'a mut String) -> Self {
        Self {
            quoted: false,
            ..Self::quoted(line)
        }
    }
}

impl Write for Printable<'_> {
    /// Fails once the text is cut, so that whoever writes it stops.
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
