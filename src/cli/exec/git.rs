//! Git's configuration in the environment, which wins over the variables of its HTTP library (git-config(1)).

use crate::config::Env;

/// More entries than anybody has; the rest stays as it is.
const ENTRIES: usize = 1000;

/// An entry that names a proxy or a file of certificates.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
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
pub(super) fn entries(env: &Env) -> Vec<Entry> {
    let count = match env.text("GIT_CONFIG_COUNT") {
        Ok(Some(count)) => count.trim().parse().unwrap_or(0),
        _ => 0,
    };
    (0..count.min(ENTRIES))
        .filter_map(|index| {
            let key = env.text(&format!("GIT_CONFIG_KEY_{index}")).ok()??;
            Some(Entry {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_certificates_are_found_whatever_they_are_for() {
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
