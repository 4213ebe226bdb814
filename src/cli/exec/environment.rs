//! The environment variables of the command, by which its calls pass through the sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{certificates, direct, git, java, proxies};
use crate::config::{Config, Env};

/// Variables that enable the proxy variables in clients that otherwise ignore them.
const SWITCHES: [&str; 2] = ["NODE_USE_ENV_PROXY", "PERL_LWP_ENV_PROXY"];

const BUNDLE: &str = "bundle.pem";
const TRUST_STORE: &str = "truststore.p12";

/// The parts of the configuration that the environment contains.
pub(super) struct ChildEnv {
    ca_dir: Option<PathBuf>,
    /// `USER:PASSWORD`, as the proxy requires it.
    credentials: Option<String>,
    /// The file that names the certificates for wget.
    pub(super) wgetrc: Option<PathBuf>,
}

/// The differences between the command's environment and that of this process.
#[derive(Debug, Default)]
pub(super) struct EnvChanges {
    /// Names and values of variables to set.
    pub(super) set: Vec<(String, String)>,
    /// Names of variables to remove.
    pub(super) removed: Vec<String>,
}

// === impl ChildEnv ===

impl ChildEnv {
    pub(super) fn of(config: &Config) -> Self {
        let auth = config.proxy.as_ref().and_then(|proxy| proxy.auth.as_ref());
        Self {
            ca_dir: config
                .intercept
                .as_ref()
                .and_then(|intercept| intercept.ca_dir.clone()),
            credentials: auth
                .and_then(|auth| auth.to_str().ok()?.strip_prefix("Basic "))
                .and_then(|encoded| STANDARD.decode(encoded).ok())
                .and_then(|decoded| String::from_utf8(decoded).ok()),
            wgetrc: None,
        }
    }

    /// Returns the bundle of all certificates that the child must trust.
    pub(super) fn bundle(&self) -> Option<PathBuf> {
        self.file(BUNDLE)
    }

    /// Returns the changes to the environment. Lists keep the caller's entries. `java` is the address of the proxy for
    /// Java.
    pub(super) fn changes(
        &self,
        proxy: SocketAddr,
        java: SocketAddr,
        inherited: proxies::ProxyVariables,
        env: &Env,
    ) -> EnvChanges {
        let mut changes = EnvChanges {
            removed: inherited.removed,
            ..EnvChanges::default()
        };
        let url = match &self.credentials {
            Some(credentials) => format!("http://{}@{proxy}", userinfo(credentials)),
            None => format!("http://{proxy}"),
        };
        for name in proxies::STANDARD.into_iter().chain(proxies::REQUIRED) {
            changes.set(name, &url);
        }
        for name in &inherited.overridden {
            changes.set(name, &url);
        }
        let direct = direct::list(env);
        for name in proxies::DIRECT.into_iter().chain([proxies::OWN_DIRECT]) {
            changes.set(name, &direct);
        }
        for name in SWITCHES {
            changes.set(name, "1");
        }
        if let Some(bundle) = self.bundle() {
            let bundle = bundle.display().to_string();
            for name in certificates::variables(env) {
                changes.set(&name, &bundle);
            }
            changes.removed.extend(certificates::removed(env));
        }
        let bundle = self.bundle().map(|bundle| bundle.display().to_string());
        if let Some(value) = git::parameters(env, &url, bundle.as_deref()) {
            changes.set(git::PARAMETERS, &value);
        }
        for (name, value) in java::variables(java, self.file(TRUST_STORE).as_deref(), env) {
            changes.set(&name, &value);
        }
        if let Some(wgetrc) = &self.wgetrc {
            changes.set("WGETRC", &wgetrc.display().to_string());
        }
        changes
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.ca_dir.as_ref().map(|folder| folder.join(name))
    }
}

// === impl EnvChanges ===

impl EnvChanges {
    fn set(&mut self, name: &str, value: &str) {
        self.set.push((name.to_owned(), value.to_owned()));
    }
}

/// Percent-encodes `USER:PASSWORD` for a URL. Only unreserved characters stay (RFC 3986, 2.3): a `#`, `/` or `@` would
/// change the URL's host. Clients decode it (RFC 3986, 3.2.1).
fn userinfo(credentials: &str) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    let escape = |text| utf8_percent_encode(text, ESCAPED);
    match credentials.split_once(':') {
        Some((user, password)) => format!("{}:{}", escape(user), escape(password)),
        None => escape(credentials).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(env: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let child_env = ChildEnv {
            ca_dir: Some("/run/ca".into()),
            credentials: Some("u:p".to_owned()),
            wgetrc: Some("/run/wgetrc".into()),
        };
        let env: Env = env.iter().copied().collect();
        let (proxy, java) = (([127, 0, 0, 1], 4000), ([127, 0, 0, 1], 4001));
        let inherited = proxies::ProxyVariables::of(&env);
        child_env
            .changes(proxy.into(), java.into(), inherited, &env)
            .set
    }

    fn value(variables: &[(String, String)], name: &str) -> String {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    #[test]
    fn every_client_finds_the_proxy_and_the_ca() {
        let all = variables(&[]);
        assert_eq!(value(&all, "HTTPS_PROXY"), "http://u:p@127.0.0.1:4000");
        assert_eq!(value(&all, "https_proxy"), "http://u:p@127.0.0.1:4000");
        assert_eq!(value(&all, "SSL_CERT_FILE"), "/run/ca/bundle.pem");
        assert_eq!(value(&all, "NODE_EXTRA_CA_CERTS"), "/run/ca/bundle.pem");
        assert_eq!(value(&all, "WGETRC"), "/run/wgetrc");
        let java = value(&all, "JAVA_TOOL_OPTIONS");
        assert!(java.contains("trustStore=/run/ca/truststore.p12"), "{java}");
        assert!(java.contains("https.proxyPort=4001"), "{java}");
        assert!(value(&all, "NO_PROXY").contains("metadata.google.internal"));
        assert!(
            !all.iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("all_proxy"))
        );
    }

    #[test]
    fn credentials_do_not_change_the_host_of_the_proxy_url() {
        for (credentials, expected) in [
            ("app:s3cret", "app:s3cret"),
            ("proxy.example:1#rest", "proxy.example:1%23rest"),
            ("u:a@b", "u:a%40b"),
            ("u:a:b", "u:a%3Ab"),
            ("u:/?&=+$,;[]", "u:%2F%3F%26%3D%2B%24%2C%3B%5B%5D"),
            ("u:100%25 \\", "u:100%2525%20%5C"),
            ("j\u{fc}rgen@x:p\u{e4}ss", "j%C3%BCrgen%40x:p%C3%A4ss"),
            ("a-b.c_d~e:x", "a-b.c_d~e:x"),
        ] {
            let child_env = ChildEnv {
                ca_dir: None,
                credentials: Some(credentials.to_owned()),
                wgetrc: None,
            };
            let address = ([127, 0, 0, 1], 4000).into();
            let inherited = proxies::ProxyVariables::default();
            let env = Env::default();
            let all = child_env.changes(address, address, inherited, &env).set;
            for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
                let expected = format!("http://{expected}@127.0.0.1:4000");
                assert_eq!(value(&all, name), expected, "{credentials}");
            }
            let url = value(&all, "HTTP_PROXY");
            let (_, userinfo) = url.split_once("://").unwrap();
            let (userinfo, _) = userinfo.split_once('@').unwrap();
            let decoded = percent_encoding::percent_decode_str(userinfo);
            assert_eq!(decoded.decode_utf8().unwrap(), credentials);
        }
    }

    #[test]
    fn existing_settings_are_kept() {
        let all = variables(&[("NO_PROXY", "db.internal"), ("JAVA_TOOL_OPTIONS", "-Xmx1g")]);
        for name in ["NO_PROXY", "no_proxy"] {
            assert!(
                value(&all, name).starts_with("db.internal,localhost"),
                "{name}"
            );
        }
        let both = variables(&[("NO_PROXY", "a"), ("no_proxy", "b")]);
        assert!(value(&both, "no_proxy").starts_with("a,b,localhost"));
        assert!(value(&all, "JAVA_TOOL_OPTIONS").starts_with("-Xmx1g -Dhttp.proxyHost"));
    }
}
