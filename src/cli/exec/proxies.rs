//! The proxies that the caller's environment names. Each is replaced or removed, so that the command does not bypass
//! the sidecar.

use super::{egress, git};
use crate::config::{Config, Env, UpstreamProxy};

/// Variables that clients prefer to `HTTPS_PROXY`. Without them the clients read `HTTPS_PROXY`. The names are in lower
/// case, because npm accepts any case. `ALL_PROXY` and the variables of SOCKS and WebSocket are removed too: HTTP
/// clients tunnel these protocols through `HTTPS_PROXY`.
const REMOVED: [&str; 32] = [
    "all_proxy",
    "cargo_http_proxy",
    "cloudsdk_proxy_address",
    "cloudsdk_proxy_password",
    "cloudsdk_proxy_port",
    "cloudsdk_proxy_rdns",
    "cloudsdk_proxy_type",
    "cloudsdk_proxy_username",
    "gdal_http_proxy",
    "gdal_http_proxyuserpwd",
    "gdal_https_proxy",
    "gdal_proxy_auth",
    "grpc_address_http_proxy",
    "grpc_address_http_proxy_enabled_addresses",
    "grpc_proxy",
    // grpc-java prefers this variable to the properties.
    "grpc_proxy_exp",
    "hex_http_proxy",
    "hex_https_proxy",
    "no_grpc_proxy",
    "npm_config_http_proxy",
    "npm_config_https_proxy",
    "npm_config_noproxy",
    "npm_config_proxy",
    "pip_proxy",
    "pnpm_config_http_proxy",
    "pnpm_config_https_proxy",
    "pnpm_config_noproxy",
    "pnpm_config_proxy",
    "socks_proxy",
    "ws_proxy",
    "wss_proxy",
    "yarn_proxy",
];

/// Variables of clients that use no proxy without them.
pub(super) const REQUIRED: [&str; 4] = [
    "GLOBAL_AGENT_HTTPS_PROXY",
    "GLOBAL_AGENT_HTTP_PROXY",
    "YARN_HTTPS_PROXY",
    "YARN_HTTP_PROXY",
];

/// The variables that most clients read.
pub(super) const STANDARD: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"];

/// The lists of hosts to call directly.
pub(super) const DIRECT: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The list of a client that does not read [`DIRECT`].
pub(super) const OWN_DIRECT: &str = "GLOBAL_AGENT_NO_PROXY";

/// What happens to a variable that the caller has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It gets our proxy's URL.
    Replace,
    /// It is removed.
    Remove,
}

/// The caller's variables that would lead the command to another proxy.
#[derive(Debug, Default)]
pub(super) struct ProxyVariables {
    /// Variables that get our proxy's URL.
    pub(super) overridden: Vec<String>,
    /// Variables that the command does not get.
    pub(super) removed: Vec<String>,
    /// The replaced proxies, for the notice: names, each with its proxy if that certainly contains no credentials.
    replaced: Vec<(String, Option<String>)>,
}

// === impl ProxyVariables ===

impl ProxyVariables {
    pub(super) fn of(env: &Env) -> Self {
        let mut found = Self::default();
        for name in env.names("").filter(|name| is_name(name)) {
            let value = match env.text(&name) {
                Ok(value) => value.unwrap_or_default(),
                // A value that is not UTF-8 is not a URL, but a client may still use it.
                Err(_) => "?",
            };
            let Some(action) = action(&name, value) else {
                continue;
            };
            if names_a_proxy(&name, value) {
                found.replaced.push((name.clone(), origin(value)));
            }
            match action {
                Action::Replace => found.overridden.push(name),
                Action::Remove => found.removed.push(name),
            }
        }
        for entry in git::entries(env) {
            if entry.kind == git::Kind::Proxy {
                let value = env.text(&entry.variable).ok().flatten().unwrap_or_default();
                let origin = origin(value);
                found.replaced.push((entry.variable.clone(), origin));
                found.overridden.push(entry.variable);
            }
        }
        for value in git::parameter_proxies(env) {
            found
                .replaced
                .push((git::PARAMETERS.to_owned(), origin(&value)));
        }
        found
    }

    /// Returns one line about the caller's proxies and what replaced them.
    pub(super) fn notice(
        &self,
        egress: &egress::InheritedProxy,
        config: &Config,
    ) -> Option<String> {
        let upstream = config.upstream.proxy.as_deref();
        let mut groups: Vec<(Option<&str>, Vec<&str>)> = Vec::new();
        for (name, origin) in &self.replaced {
            let origin = origin.as_deref();
            if upstream.is_some_and(|proxy| is_in_use(name, origin, proxy)) {
                continue;
            }
            match groups.iter_mut().find(|(other, _)| *other == origin) {
                Some((_, names)) => names.push(name),
                None => groups.push((origin, vec![name])),
            }
        }
        let groups: Vec<String> = groups
            .into_iter()
            .map(|(origin, names)| match origin {
                Some(origin) => format!("{} ({origin})", names.join(", ")),
                None => names.join(", "),
            })
            .collect();
        let groups = groups.join("; ");
        match (egress.in_use(config), upstream) {
            (Some(in_use), _) if groups.is_empty() => Some(format!(
                "{in_use}. The command gets the sidecar's proxy instead"
            )),
            (Some(in_use), _) => Some(format!(
                "{in_use}. Other proxies of the environment are not used: {groups}. The command gets the sidecar's proxy \
                 instead"
            )),
            (None, _) if groups.is_empty() => None,
            (None, Some(proxy)) => Some(format!(
                "the proxies of the environment are not used: {groups}. The command gets the sidecar's proxy instead, and \
                 the sidecar reaches upstreams through {}",
                proxy.egress
            )),
            (None, None) => {
                let why = egress.unusable().map(|why| format!(". {why}"));
                Some(format!(
                    "the proxies of the environment are not used: {groups}. The command gets the sidecar's proxy instead, \
                     and the sidecar connects to upstreams directly{}",
                    why.unwrap_or_default()
                ))
            }
        }
    }
}

/// Returns whether the variable names the proxy that the sidecar uses.
fn is_in_use(name: &str, origin: Option<&str>, proxy: &UpstreamProxy) -> bool {
    let url = proxy.egress.to_string();
    proxy.is_from_variable(name)
        || origin.is_some_and(|origin| {
            let origin = origin.to_ascii_lowercase();
            origin == url || Some(&*origin) == url.strip_prefix("http://")
        })
}

/// Returns the action for a variable, or `None` if it does not make a client bypass the sidecar.
fn action(name: &str, value: &str) -> Option<Action> {
    let key = name.to_ascii_lowercase().replace('-', "_");
    let known = |names: &[&str]| names.contains(&name);
    if REMOVED.contains(&&*key) {
        return Some(Action::Remove);
    }
    if known(&STANDARD) || known(&REQUIRED) {
        return Some(Action::Replace);
    }
    if known(&DIRECT) || name == OWN_DIRECT || key.starts_with("sidentity_") {
        return None;
    }
    // Python and Perl accept any spelling.
    if matches!(&*key, "http_proxy" | "https_proxy" | "no_proxy") {
        return Some(Action::Remove);
    }
    (is_of_one_client(&key) && is_proxy(value)).then_some(Action::Replace)
}

/// Returns whether the name is `PROXY` or ends with it, except lists of hosts to call directly and proxies of other
/// protocols.
fn is_of_one_client(key: &str) -> bool {
    let mut words = key.rsplit('_');
    words.next() == Some("proxy")
        && !words.clone().any(|word| matches!(word, "no" | "non"))
        && !matches!(words.next(), Some("ftp" | "rsync"))
}

/// Returns whether the variable is worth reporting: not a list of hosts, a user or a number.
fn names_a_proxy(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = |suffix| name.ends_with(suffix);
    !value.is_empty()
        && (ends("_address")
            || ends("_proxy_exp")
            || (name == "proxy" || ends("_proxy"))
                && !ends("no_proxy")
                && !ends("noproxy")
                && !ends("no_grpc_proxy"))
}

/// Returns whether the name is printable on one line.
fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Returns whether the value is a proxy's URL or `HOST:PORT`, and not a switch.
fn is_proxy(value: &str) -> bool {
    let value = value.trim();
    match value.split_once("://") {
        Some((scheme, _)) => {
            let scheme = scheme.to_ascii_lowercase();
            scheme == "http" || scheme == "https" || scheme.starts_with("socks")
        }
        None => value
            .trim_end_matches('/')
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
    }
}

/// Returns `SCHEME://HOST:PORT` of a proxy's URL, or `None` if it is not certain which part is a password.
fn origin(value: &str) -> Option<String> {
    let (scheme, rest) = match value.trim().split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, value.trim()),
    };
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    // A password may contain any of these characters, although it should encode them.
    if rest
        .get(authority.len()..)
        .is_none_or(|after| after.contains('@'))
    {
        return None;
    }
    let host = authority.rsplit('@').next()?;
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_host = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let is_scheme = scheme.is_none_or(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    (is_host && is_port && is_scheme).then(|| match scheme {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RawConfig, load};

    #[test]
    fn a_displayed_proxy_has_no_credentials() {
        for (value, expected) in [
            (
                "http://proxy.example:3128",
                Some("http://proxy.example:3128"),
            ),
            (
                "http://proxy.example:3128/",
                Some("http://proxy.example:3128"),
            ),
            ("proxy.example:3128", Some("proxy.example:3128")),
            ("proxy.example", Some("proxy.example")),
            ("socks5h://[::1]:1080", Some("socks5h://[::1]:1080")),
            ("socks5h://[::1]", Some("socks5h://[::1]")),
            ("http://u:p@proxy.example:1", Some("http://proxy.example:1")),
            ("u:p@proxy.example:1", Some("proxy.example:1")),
            (
                "http://u:p@ss@proxy.example:1",
                Some("http://proxy.example:1"),
            ),
            (
                "http://proxy.example:1/?token=secret",
                Some("http://proxy.example:1"),
            ),
            // The text after the last @ may be a part of the path, or the text before it a part of the password.
            ("http://u:p/ss@proxy.example:1", None),
            ("http://u:p#ss@proxy.example:1", None),
            ("http://u:p@ss/word@proxy.example:1", None),
            ("http://u:p@ss\\word@proxy.example:1", None),
            ("http://proxy.example:1/@secret", None),
            ("http://u:secret", None),
            ("http://u:p@", None),
            ("http://pro xy", None),
            ("", None),
            ("secret secret", None),
        ] {
            assert_eq!(origin(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_value_without_scheme_or_port_is_not_a_proxy() {
        for value in [
            "true",
            "1",
            "on",
            "",
            "localhost",
            "tcp://10.0.0.1:80",
            ":80",
        ] {
            assert!(!is_proxy(value), "{value}");
        }
        for value in ["http://p", "HTTPS://p", "socks4a://p", "p:80", "u:p@h:80/"] {
            assert!(is_proxy(value), "{value}");
        }
    }

    #[test]
    fn the_notice_names_each_proxy_once() {
        let env: Env = [
            ("ALL_PROXY", "socks5://s:1080"),
            ("HTTPS_PROXY", "http://u:p@a:1"),
            ("NO_PROXY", "b"),
            ("cloudsdk_proxy_password", "secret"),
            ("http_proxy", "http://a:1"),
            ("npm_config_noproxy", "b"),
        ]
        .into_iter()
        .collect();
        let found = ProxyVariables::of(&env);
        let config = load(&RawConfig::default(), &env).unwrap();
        let none = egress::InheritedProxy::default();
        let notice = found.notice(&none, &config).unwrap();
        assert!(
            notice.contains(
                "used: ALL_PROXY (socks5://s:1080); HTTPS_PROXY, http_proxy (http://a:1). "
            ),
            "{notice}"
        );
        assert_eq!(found.overridden, ["HTTPS_PROXY", "http_proxy"]);
        let removed = ["ALL_PROXY", "cloudsdk_proxy_password", "npm_config_noproxy"];
        assert_eq!(found.removed, removed);
        assert_eq!(ProxyVariables::default().notice(&none, &config), None);
    }
}
