//! Values that a user means as text but that have another meaning in YAML: `*.internal.example` is an alias.

use super::super::diagnostic::quote;

/// A plain value that must be quoted.
pub(super) struct Unquoted {
    /// Its column, from 1.
    pub(super) column: u64,
    value: String,
}

/// Indicators that no plain scalar may begin with and that make a syntax error (YAML 1.2.2, 5.3).
const INDICATORS: [char; 3] = ['%', '@', '`'];

/// Searches the line of a syntax error (counted from 1) for a value that begins with an indicator.
pub(super) fn find(source: &str, line: u64) -> Option<Unquoted> {
    let is_anchor = |name: &str| source.contains(&format!("&{name}"));
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let line = source.lines().nth(index)?;
    let mut quoted = None;
    let mut start = true;
    for (at, c) in line.char_indices() {
        let (head, rest) = line.split_at(at);
        match quoted {
            Some(quote) => {
                if c == quote {
                    quoted = None;
                }
                start = false;
            }
            None if start && (c == '"' || c == '\'') => quoted = Some(c),
            None if c == '#' && (head.is_empty() || head.ends_with(' ')) => return None,
            None if start && is_misread(rest, is_anchor) => {
                return Some(Unquoted {
                    column: u64::try_from(head.chars().count()).ok()? + 1,
                    value: value(rest, head.contains(['{', '['])).to_owned(),
                });
            }
            None if c == ' ' => start = start || head.ends_with([':', '-', ',']),
            None => start = matches!(c, '[' | '{' | ','),
        }
    }
    None
}

/// Returns whether YAML misreads a value that begins here: an indicator, an alias without an anchor, or an IPv6 address
/// in brackets with its port.
fn is_misread(rest: &str, is_anchor: impl Fn(&str) -> bool) -> bool {
    if let Some(name) = rest.strip_prefix('*') {
        let name = name.split([' ', ',', ']', '}']).next().unwrap_or(name);
        return name.is_empty() || !is_anchor(name);
    }
    let address = rest
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
        .is_some_and(|(inner, after)| inner.contains("::") && after.starts_with(':'));
    address || rest.starts_with(INDICATORS)
}

/// Returns the value. It ends at a comment, and in a list or mapping on one line also at a comma or bracket.
fn value(rest: &str, in_flow: bool) -> &str {
    let after_address = rest.find("]:").map_or(0, |bracket| bracket + 1);
    let end = rest
        .char_indices()
        .skip_while(|(at, _)| rest.starts_with('[') && *at < after_address)
        .find(|(at, c)| {
            (in_flow && matches!(c, ',' | ']' | '}'))
                || rest.get(*at..).is_some_and(|rest| rest.starts_with(" #"))
        })
        .map_or(rest.len(), |(at, _)| at);
    rest.get(..end).unwrap_or(rest).trim_end()
}

// === impl Unquoted ===

impl Unquoted {
    /// Returns the message. It omits a value that may be a password.
    pub(super) fn message(&self) -> String {
        let begins = self.value.chars().next().unwrap_or('*');
        // A value that begins with `@` may also contain another one.
        let rest = self.value.strip_prefix(begins).unwrap_or_default();
        let shown = if rest.contains('@') || (begins == '@' && rest.contains(':')) {
            "a value".to_owned()
        } else {
            quote(&self.value)
        };
        format!(
            "{shown} begins with {begins}, which has another meaning in YAML: write it in quotes"
        )
    }
}
