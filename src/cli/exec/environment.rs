//! What an app must find in its environment so that its calls pass through the sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{Config, Env};

/// Calls that must not pass through: the machine itself and its metadata server.
const DIRECT: &str = "localhost,127.0.0.1,::1,metadata.google.internal,metadata,169.254.169.254";

/// The same in Java's words.
const DIRECT_JAVA: &str = "localhost|127.*|[::1]|metadata.google.internal|metadata|169.254.169.254";

/// What a child must not have: `ALL_PROXY` is for protocols that this proxy does not speak.
pub(super) const REMOVED: [&str; 2] = ["ALL_PROXY", "all_proxy"];

const BUNDLE: &str = "bundle.pem";

/// What of the configuration goes into the environment.
pub(super) struct Surroundings {
    ca_dir: Option<PathBuf>,
    /// `USER:PASSWORD`, as the proxy asks for.
    credentials: Option<String>,
    /// Where wget finds the certificates.
    pub(super) wgetrc: Option<PathBuf>,
}

impl Surroundings {
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

    /// All certificates that the child is to trust.
    pub(super) fn bundle(&self) -> Option<PathBuf> {
        self.ca_dir.as_ref().map(|folder| folder.join(BUNDLE))
    }

    /// Names and values; what is there already is kept where it is a list. `java` is where Java finds the proxy.
    pub(super) fn variables(
        &self,
        proxy: SocketAddr,
        java: SocketAddr,
        env: &Env,
    ) -> Vec<(&'static str, String)> {
        let there = |name: &str| env.text(name).ok().flatten().unwrap_or("").to_owned();
        let url = match &self.credentials {
            Some(credentials) => format!("http://{credentials}@{proxy}"),
            None => format!("http://{proxy}"),
        };
        // Clients read one or the other, and those who set one meant both.
        let direct = match (there("NO_PROXY"), there("no_proxy")) {
            (upper, lower) if upper.is_empty() && lower.is_empty() => DIRECT.to_owned(),
            (upper, lower) if upper.is_empty() || upper == lower => format!("{lower},{DIRECT}"),
            (upper, lower) if lower.is_empty() => format!("{upper},{DIRECT}"),
            (upper, lower) => format!("{upper},{lower},{DIRECT}"),
        };
        let mut variables = vec![
            ("HTTP_PROXY", url.clone()),
            ("HTTPS_PROXY", url.clone()),
            ("http_proxy", url.clone()),
            ("https_proxy", url),
            ("NO_PROXY", direct.clone()),
            ("no_proxy", direct),
            ("NODE_USE_ENV_PROXY", "1".to_owned()),
        ];
        let mut options = vec![there("JAVA_TOOL_OPTIONS")];
        for scheme in ["http", "https"] {
            options.push(format!("-D{scheme}.proxyHost={}", java.ip()));
            options.push(format!("-D{scheme}.proxyPort={}", java.port()));
        }
        options.push(format!("-Dhttp.nonProxyHosts={DIRECT_JAVA}"));
        if let Some(folder) = &self.ca_dir {
            let file = |name: &str| folder.join(name).display().to_string();
            for name in [
                "SSL_CERT_FILE",
                "CURL_CA_BUNDLE",
                "REQUESTS_CA_BUNDLE",
                // With the system's, for what Node and Deno have built in lacks a company's own.
                "NODE_EXTRA_CA_CERTS",
                "DENO_CERT",
                "GIT_SSL_CAINFO",
                "PIP_CERT",
                "NPM_CONFIG_CAFILE",
                "AWS_CA_BUNDLE",
                "CARGO_HTTP_CAINFO",
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            ] {
                variables.push((name, file(BUNDLE)));
            }
            options.push(format!(
                "-Djavax.net.ssl.trustStore={}",
                file("truststore.p12")
            ));
            options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
            options.push("-Djavax.net.ssl.trustStorePassword=changeit".to_owned());
        }
        if let Some(wgetrc) = &self.wgetrc {
            variables.push(("WGETRC", wgetrc.display().to_string()));
        }
        options.retain(|option| !option.is_empty());
        variables.push(("JAVA_TOOL_OPTIONS", options.join(" ")));
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(env: &[(&'static str, &'static str)]) -> Vec<(&'static str, String)> {
        let surroundings = Surroundings {
            ca_dir: Some("/run/ca".into()),
            credentials: Some("u:p".to_owned()),
            wgetrc: Some("/run/wgetrc".into()),
        };
        let env: Env = env.iter().copied().collect();
        let (proxy, java) = (([127, 0, 0, 1], 4000), ([127, 0, 0, 1], 4001));
        surroundings.variables(proxy.into(), java.into(), &env)
    }

    fn value(variables: &[(&'static str, String)], name: &str) -> String {
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
    fn what_is_there_already_is_kept() {
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
