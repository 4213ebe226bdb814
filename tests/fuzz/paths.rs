//! Readings of a path by servers that share no code with `policy::path`.

use std::path::{Component, Path};

use sidentity::destination::Destination;
use sidentity::policy::{CredentialGrant, Policy, Settings, TokenKind};

use super::{rule, text};

const READERS: [fn(&str) -> String; 8] = [
    |path| decoded(path),
    |path| resolved(&decoded(path)),
    |path| decoded(&resolved(path)),
    |path| resolved(&decoded(&without_parameters(path))),
    |path| resolved(&decoded(&without_parameters(&resolved(&decoded(path))))),
    |path| resolved(&decoded(path).replace('\\', "/")),
    |path| resolved(&decoded(&decoded(path))),
    |path| {
        resolved(&without_parameters(
            &decoded(&decoded(path)).replace('\\', "/"),
        ))
    },
];

/// A path that any reader finds below `/admin` is denied, a permitted path is below `/pub` for every reader, and a
/// function's token is for the function that every reader finds.
pub fn paths(input: &[u8]) {
    let Some(path) = text(input).filter(|path| path.starts_with('/')) else {
        return;
    };
    let grant = |host: &str, rules: &[&str]| {
        let destination = Destination::parse(&format!("https://{host}{path}")).ok()?;
        let rules = rules.iter().filter_map(|line| rule(line)).collect();
        let policy = Policy::new(rules, Settings::default());
        Some(policy.decide(&destination, "googleapis.com").grant)
    };
    let path = path.split(['?', '#']).next().expect("the first part");
    let denied = grant("a.example", &["a.example/admin=deny", "a.example=access"]);
    let granted = grant("a.example", &["a.example/pub=access"]);
    let function = grant("r-p.cloudfunctions.net", &[]);
    for read in READERS {
        let read = read(path);
        if is_below(&read, "/admin") {
            assert!(
                matches!(denied, None | Some(CredentialGrant::Deny(_))),
                "{path:?}: {read:?}"
            );
        }
        if let Some(CredentialGrant::Token(_)) = granted {
            assert!(is_below(&read, "/pub"), "{path:?}: {read:?}");
        }
        if let Some(CredentialGrant::Token(key)) = &function
            && let TokenKind::Id { audience } = &key.kind
        {
            let name = audience.rsplit('/').next();
            let first = read.trim_start_matches('/').split('/').next();
            assert_eq!(first, name, "{path:?}: {read:?}");
        }
    }
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = rest
            .get(1..3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The reading of the standard library on Unix: slashes merged, dots resolved.
fn resolved(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().expect("it was text")),
            Component::ParentDir => {
                names.pop();
            }
            _ => {}
        }
    }
    format!("/{}", names.join("/"))
}

fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next());
    let segments: Vec<&str> = segments.map(Option::unwrap_or_default).collect();
    segments.join("/")
}

fn is_below(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
