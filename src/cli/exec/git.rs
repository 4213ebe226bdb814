//! Git's configuration in the environment. It takes precedence over the variables of Git's HTTP library
//! (git-config(1)).

use crate::config::Env;

/// The number of entries that are read. Further entries are not changed.
const ENTRIES: usize = 1000;

/// An entry that names a proxy or a file of certificates.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GitEntry {
    pub(super) kind: Kind,
    /// The variable that has the entry's value.
    pub(super) variable: String,
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `http.sslCAInfo`, with or without a URL.
    Certificates,
    /// `http.proxy`, with or without a URL, or the proxy of a remote.
    Proxy,
}

/// Returns the entries that `GIT_CONFIG_COUNT` counts.
pub(super) fn entries(env: &Env) -> Vec<GitEntry> {
    let count = match env.text("GIT_CONFIG_COUNT") {
        Ok(Some(count)) => count.trim().parse().unwrap_or(0),
        _ => 0,
    };
    (0..count.min(ENTRIES))
        .filter_map(|index| {
            let key = env.text(&format!("GIT_CONFIG_KEY_{index}")).ok()??;
            Some(GitEntry {
                kind: kind(key)?,
                variable: format!("GIT_CONFIG_VALUE_{index}"),
            })
        })
        .collect()
}

/// Returns the kind of a key. Section and name are case-insensitive, and a URL or remote may be between them.
fn kind(key: &str) -> Option<Kind> {
    let key = key.to_ascii_lowercase();
    let (section, name) = (key.split('.').next()?, key.rsplit('.').next()?);
    match (section, name) {
        ("http", "sslcainfo") => Some(Kind::Certificates),
        ("http" | "remote", "proxy") => Some(Kind::Proxy),
        _ => None,
    }
}

/// The variable by which `git -c` passes settings to child processes.
pub(super) const PARAMETERS: &str = "GIT_CONFIG_PARAMETERS";

/// Returns `GIT_CONFIG_PARAMETERS` with our proxy, and our bundle if there is one, instead of the caller's. All other
/// bytes stay. Returns `None` if it names neither, or if git refuses it.
pub(super) fn parameters(env: &Env, proxy: &str, bundle: Option<&str>) -> Option<String> {
    let text = env.text(PARAMETERS).ok()??;
    let mut changed = String::with_capacity(text.len());
    let mut copied = 0;
    for parameter in parsed(text)? {
        let value = match parameter.kind() {
            Some(Kind::Proxy) => proxy,
            Some(Kind::Certificates) => match bundle {
                Some(bundle) => bundle,
                None => continue,
            },
            None => continue,
        };
        changed.push_str(text.get(copied..parameter.start)?);
        copied = parameter.end;
        changed.push_str(&match parameter.is_old {
            true => quoted(&format!("{}={value}", parameter.key)),
            false => format!("{}={}", quoted(&parameter.key), quoted(value)),
        });
    }
    if copied == 0 {
        return None;
    }
    changed.push_str(text.get(copied..)?);
    Some(changed)
}

/// Returns the proxies that `GIT_CONFIG_PARAMETERS` names.
pub(super) fn parameter_proxies(env: &Env) -> Vec<String> {
    values(env, Kind::Proxy)
}

/// Returns the files of certificates that `GIT_CONFIG_PARAMETERS` names.
pub(super) fn parameter_certificates(env: &Env) -> Vec<String> {
    values(env, Kind::Certificates)
}

fn values(env: &Env, kind: Kind) -> Vec<String> {
    let text = env.text(PARAMETERS).ok().flatten().unwrap_or_default();
    parsed(text)
        .unwrap_or_default()
        .into_iter()
        .filter(|parameter| parameter.kind() == Some(kind))
        .map(|parameter| parameter.value)
        .collect()
}

/// One setting of `git -c`.
#[derive(Debug, Default)]
struct Parameter {
    /// The position of the setting in the variable, in bytes.
    start: usize,
    end: usize,
    /// Whether the form is `'KEY=VALUE'` of git before 2.31, not `'KEY'='VALUE'`.
    is_old: bool,
    key: String,
    value: String,
}

impl Parameter {
    fn kind(&self) -> Option<Kind> {
        kind(&self.key)
    }
}

/// Parses all settings as git does (`git_config_from_parameters`). Returns `None` if git refuses them.
fn parsed(text: &str) -> Option<Vec<Parameter>> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let (first, after) = unquoted(rest)?;
        let mut parameter = Parameter {
            start,
            ..Parameter::default()
        };
        rest = after;
        if let Some(after) = rest.strip_prefix('=') {
            parameter.key = first;
            rest = after;
            if rest.starts_with('\'') {
                (parameter.value, rest) = unquoted(rest)?;
            }
        } else {
            let (key, value) = first.split_once('=').unwrap_or((&first, ""));
            (parameter.key, parameter.value) = (key.to_owned(), value.to_owned());
            parameter.is_old = true;
        }
        if !rest.is_empty() && !rest.starts_with(is_space) {
            return None;
        }
        parameter.end = text.len() - rest.len();
        found.push(parameter);
        rest = rest.trim_start_matches(is_space);
    }
    Some(found)
}

/// Splits off a text in single quotes. Outside of the quotes only `\'` and `\!` are allowed.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('\'')?;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        let escaped = ["\\''", "\\!'"]
            .into_iter()
            .find_map(|escape| Some((escape, after.strip_prefix(escape)?)));
        let Some((escape, after_escape)) = escaped else {
            return Some((value, after));
        };
        value.extend(escape.chars().nth(1));
        rest = after_escape;
    }
}

/// Quotes a text as git does.
fn quoted(text: &str) -> String {
    let text = text.replace('\'', "'\\''").replace('!', "'\\!'");
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proxy_options_of_git_dash_c_are_replaced() {
        let change = |text: &'static str| {
            let env: Env = [(PARAMETERS, text)].into_iter().collect();
            parameters(&env, "http://us", None)
        };
        for (text, expected) in [
            ("'http.proxy=http://a'", "'http.proxy=http://us'"),
            ("'http.proxy'='http://a'", "'http.proxy'='http://us'"),
            ("'HTTP.Proxy'=", "'HTTP.Proxy'='http://us'"),
            ("'http.proxy'", "'http.proxy=http://us'"),
            (
                "  'remote.it'\\''s.proxy'='a b'\t'c.d'='\u{e9}'\\!'x'  ",
                "  'remote.it'\\''s.proxy'='http://us'\t'c.d'='\u{e9}'\\!'x'  ",
            ),
            (
                "'http.https://a=b/.proxy'='p'",
                "'http.https://a=b/.proxy'='http://us'",
            ),
        ] {
            let text = text.trim_start();
            assert_eq!(
                change(text).as_deref(),
                Some(expected.trim_start()),
                "{text}"
            );
        }
        for text in [
            "",
            "'user.name=http.proxy=x'",
            "'user.name'='it'\\''s http.proxy=a'",
            // Git refuses these settings.
            "http.proxy=a",
            "'http.proxy=a",
            "'http.proxy'=a",
            "'http.proxy=a'x",
            "'http.proxy'='a'\\'b'",
        ] {
            assert_eq!(change(text), None, "{text}");
        }
        assert_eq!(quoted("it's!"), "'it'\\''s'\\!''");
    }

    #[test]
    fn proxies_and_certificates_are_found_for_any_url() {
        let env: Env = [
            ("GIT_CONFIG_COUNT", "5"),
            ("GIT_CONFIG_KEY_0", "http.proxy"),
            ("GIT_CONFIG_KEY_1", "user.name"),
            ("GIT_CONFIG_KEY_2", "HTTP.https://a.example/.Proxy"),
            ("GIT_CONFIG_KEY_4", "http.sslCAInfo"),
            ("GIT_CONFIG_KEY_5", "remote.origin.proxy"),
        ]
        .into_iter()
        .collect();
        let found: Vec<_> = entries(&env)
            .into_iter()
            .map(|entry| (entry.kind, entry.variable))
            .collect();
        assert_eq!(
            found,
            [
                (Kind::Proxy, "GIT_CONFIG_VALUE_0".to_owned()),
                (Kind::Proxy, "GIT_CONFIG_VALUE_2".to_owned()),
                (Kind::Certificates, "GIT_CONFIG_VALUE_4".to_owned()),
            ]
        );
        assert_eq!(kind("remote.origin.proxy"), Some(Kind::Proxy));
        let endless: Env = [("GIT_CONFIG_COUNT", "18446744073709551615")]
            .into_iter()
            .collect();
        assert_eq!(entries(&endless), []);
    }
}
