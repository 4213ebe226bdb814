//! Characters that a terminal or a page does not show.

/// Returns whether this is a control character, a line separator, or a character that reorders or hides its neighbours.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
