//! Git's configuration in the environment, which wins over the variables of its HTTP library (git-config(1)).

use crate::config::Env;

/// More entries than anybody has; the rest stays as it is.
const ENTRIES: usize = 1000;

/// An entry that names a proxy or a file of certificates.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GitEntry {
    pub(super) kind: Kind,
    /// The variable that holds its value.
    pub(super) variable: String,
}

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `http.sslCAInfo`, also of a URL.
    Certificates,
    /// `http.proxy`, also of a URL or a remote.
    Proxy,
}

/// The entries of `GIT_CONFIG_COUNT`.
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

/// Section and name in any case; a URL may stand between them.
fn kind(key: &str) -> Option<Kind> {
    let key = key.to_ascii_lowercase();
    let (section, name) = (key.split('.').next()?, key.rsplit('.').next()?);
    match (section, name) {
        ("http", "sslcainfo") => Some(Kind::Certificates),
        ("http" | "remote", "proxy") => Some(Kind::Proxy),
        _ => None,
    }
}

/// The variable of `git -c`.
pub(super) const PARAMETERS: &str = "GIT_CONFIG_PARAMETERS";

/// `GIT_CONFIG_PARAMETERS` with our proxy, and our bundle if there is one, in place of the caller's; all else is the same
/// byte for byte. None where it names neither, or where git refuses it.
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

/// The proxies of `GIT_CONFIG_PARAMETERS`.
pub(super) fn parameter_proxies(env: &Env) -> Vec<String> {
    values(env, Kind::Proxy)
}

/// The files of certificates of `GIT_CONFIG_PARAMETERS`.
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
    /// Where it is in the variable, in bytes.
    start: usize,
    end: usize,
    /// `'KEY=VALUE'` of git before 2.31, not `'KEY'='VALUE'`.
    is_old: bool,
    key: String,
    value: String,
}

impl Parameter {
    fn kind(&self) -> Option<Kind> {
        kind(&self.key)
    }
}

/// All settings, as git reads them (`git_config_from_parameters`). None where it refuses them.
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

/// A text in single quotes, and what follows it. Outside of the quotes only `\'` and `\!` may stand.
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

/// As git quotes it.
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
            // Git refuses these.
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
