//! Normalises paths, for matching only. The path is sent upstream as the app wrote it.
//!
//! `/x/../admin`, `//admin`, `/%61dmin` and `/admin` are the same resource on nearly every server, so a rule for one of
//! them must match them all. A path that servers read in different ways has several [`readings`].

mod readings;

use std::borrow::Cow;
use std::fmt::Write as _;

pub(super) use readings::{Readings, is_suspicious, readings};

/// Decodes what needs no encoding, reads `\` as `/`, collapses slashes and resolves dot segments (RFC 3986, 6.2.2).
///
/// An encoded slash stays encoded, because some servers do not treat it as a separator. A normal path is borrowed.
pub(super) fn normalize(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path, |byte| matches!(byte, b'/' | b'\\')).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// Returns whether `path` is `prefix` or below it, by whole segments. Both are normalised; the prefix has no trailing
/// slash.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns whether the path is surely normal. A false negative only costs an allocation.
fn is_normal(path: &str) -> bool {
    let mut previous = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let suspicious = !byte.is_ascii_graphic()
                || matches!(byte, b'%' | b'\\')
                || (previous == b'/' && matches!(byte, b'/' | b'.'));
            previous = byte;
            !suspicious
        })
}

/// Decodes the escapes of visible ASCII characters. Writes these as upper-case escapes: `%`, `?` and `#`, the
/// characters to `keep` if they were escaped, and all other bytes.
///
/// RFC 3986 defines only unreserved characters as equal to their escapes, but servers decode `%3A` as well as `%61`.
fn decode(path: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        let mut byte = *first;
        let mut encoded = false;
        if let (b'%', [high, low, after @ ..]) = (byte, rest)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            byte = high << 4 | low;
            encoded = true;
            bytes = after;
        }
        let stays = matches!(byte, b'%' | b'?' | b'#') || (encoded && keep(byte));
        if stays || !byte.is_ascii_graphic() {
            triplet(&mut decoded, byte);
        } else {
            decoded.push(char::from(byte));
        }
    }
    decoded
}

fn triplet(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "%{byte:02X}");
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
