//! Enumerates the readings of an ambiguous path.
//!
//! A chain of proxies, frameworks and servers decodes escapes, strips `;parameters` (Tomcat), reads `\` as `/` (IIS),
//! merges slashes (nginx) and resolves dot segments (RFC 3986, 5.2.4). The sidecar knows neither which of them apply
//! nor their order. The readings of a path are all results that these steps can have.

use std::borrow::Cow;

use super::{decode, hex};

/// The largest number of readings. No ordinary client sends a path with more.
const MAX_READINGS: usize = 128;
/// The longest path whose readings are enumerated, in bytes.
const LONGEST: usize = 8 * 1024;

/// The readings of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Readings {
    /// One reading: the result of [`super::normalize`].
    One,
    /// These readings. The first is the plain one.
    Several(Vec<String>),
    /// More readings than are enumerated.
    Unknown,
}

/// Returns the readings of a path. It costs one scan if the path is not suspicious.
pub(in crate::policy) fn readings(path: &str) -> Readings {
    if !is_suspicious(path) {
        return Readings::One;
    }
    if path.len() > LONGEST {
        return Readings::Unknown;
    }
    let mut found = vec![decode(path, is_ambiguous_byte)];
    let mut next = 0;
    while let Some(reading) = found.get(next).cloned() {
        for step in REWRITES {
            let Some(other) = step(&reading).filter(|other| !found.contains(other)) else {
                continue;
            };
            if found.len() == MAX_READINGS {
                return Readings::Unknown;
            }
            found.push(other);
        }
        next += 1;
    }
    if found.len() == 1 {
        Readings::One
    } else {
        Readings::Several(found)
    }
}

/// Returns whether a path may have several readings. It has no false negatives.
pub(in crate::policy) fn is_suspicious(path: &str) -> bool {
    let mut previous = 0;
    path.bytes().any(|byte| {
        let after_slash = previous == b'/' && matches!(byte, b'/' | b'.');
        previous = byte;
        after_slash || matches!(byte, b'%' | b'\\' | b';')
    })
}

/// Bytes whose escapes some servers treat differently from the bytes.
fn is_ambiguous_byte(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | b'.' | b';' | b'%')
}

/// A rewrite that a server may apply to a path. Returns `None` if it changes nothing.
type Rewrite = fn(&str) -> Option<String>;

const REWRITES: [Rewrite; 5] = [
    unescape,
    strip_parameters,
    backslashes,
    merge_slashes,
    resolve_dots,
];

/// Decodes the remaining escapes once: `%252F` becomes `%2F`.
fn unescape(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut changed = false;
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('%') {
        decoded.push_str(plain);
        let byte = match escape.as_bytes() {
            [high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match byte
            .filter(|byte| is_ambiguous_byte(*byte))
            .zip(escape.get(2..))
        {
            Some((byte, after)) => {
                decoded.push(char::from(byte));
                changed = true;
                rest = after;
            }
            None => {
                decoded.push('%');
                rest = escape;
            }
        }
    }
    if !changed {
        return None;
    }
    decoded.push_str(rest);
    // A percent sign that begins no escape is escaped again: "100%25" is unchanged.
    let decoded = decode(&decoded, is_ambiguous_byte);
    (decoded != path).then_some(decoded)
}

/// Removes the text from `;` to the end of its segment.
fn strip_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let segments: Vec<&str> = path
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or(segment))
            .collect();
        segments.join("/")
    })
}

fn backslashes(path: &str) -> Option<String> {
    path.contains('\\').then(|| path.replace('\\', "/"))
}

fn merge_slashes(path: &str) -> Option<String> {
    path.contains("//").then(|| {
        let mut merged = String::with_capacity(path.len());
        for c in path.chars() {
            if c != '/' || !merged.ends_with('/') {
                merged.push(c);
            }
        }
        merged
    })
}

/// Resolves dot segments. An empty segment counts (RFC 3986): `/a//..` is `/a/`, unless slashes were merged before.
fn resolve_dots(path: &str) -> Option<String> {
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return None;
    }
    let mut segments: Vec<Cow<'_, str>> = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = parts.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if parts.peek().is_none() {
                    segments.push("".into());
                }
            }
            other => segments.push(other.into()),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read_as(path: &str, expected: &[&str]) {
        let Readings::Several(mut found) = readings(path) else {
            panic!("{path} has one reading");
        };
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn each_normalisation_step_is_a_reading() {
        read_as("/admin%2fx", &["/admin%2Fx", "/admin/x"]);
        read_as("/%2Fadmin", &["/%2Fadmin", "//admin", "/admin"]);
        read_as("/admin;x=1/y", &["/admin;x=1/y", "/admin/y"]);
        read_as("/pub/..;", &["/pub/..;", "/pub/..", "/"]);
        read_as("/pub/..;/x", &["/pub/..;/x", "/pub/../x", "/x"]);
        read_as("/fn1/../fn2", &["/fn1/../fn2", "/fn2"]);
        read_as("/x\\../pub", &["/x\\../pub", "/x/../pub", "/pub"]);
        read_as("//a", &["//a", "/a"]);
        read_as("/a//../b", &["/a//../b", "/a/b", "/a/../b", "/b"]);
        read_as("/a/%2e", &["/a/%2E", "/a/.", "/a/"]);
        read_as("/a%5Cb", &["/a%5Cb", "/a\\b", "/a/b"]);
        read_as("/a%3bb", &["/a%3Bb", "/a;b", "/a"]);
        read_as("/a%252fb", &["/a%252fb", "/a%2Fb", "/a/b"]);
        read_as("/a%25252fb", &["/a%25252fb", "/a%252fb", "/a%2Fb", "/a/b"]);
        read_as("/a%2%66b", &["/a%252fb", "/a%2Fb", "/a/b"]);
        read_as("/%25%36%31", &["/%2561", "/a"]);
    }

    #[test]
    fn normalisation_steps_combine_in_any_order() {
        let Readings::Several(found) = readings("/a/b%2fc/../%2e%2e/x") else {
            panic!("several");
        };
        for order in ["/a/x", "/x", "/a/%2E%2E/x", "/a/../x"] {
            assert!(
                found.iter().any(|reading| reading == order),
                "{order}: {found:?}"
            );
        }
    }

    #[test]
    fn an_unambiguous_path_has_one_reading() {
        for path in [
            "/",
            "/a/b.c",
            "/.well-known/x",
            "/...",
            "/a/..b",
            "/v1/p%3Aset%20x/%c3%A9",
            "/%61dmin",
            "/100%",
            "/100%25",
            "/%zz",
            "*",
        ] {
            assert_eq!(readings(path), Readings::One, "{path}");
        }
    }

    #[test]
    fn a_path_with_too_many_readings_is_not_enumerated() {
        let deep = format!("/%{}61", "25".repeat(200));
        let long = format!("/%2f{}", "a".repeat(LONGEST));
        for path in [&deep, &long] {
            assert_eq!(readings(path), Readings::Unknown, "{path}");
        }
    }
}
