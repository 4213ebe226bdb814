//! What an app must find in its environment so that its calls pass through the sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

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
            Some(credentials) => format!("http://{}@{proxy}", userinfo(credentials)),
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
            options.push(java_option(format!(
                "-Djavax.net.ssl.trustStore={}",
                file("truststore.p12")
            )));
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

/// `USER:PASSWORD` as it stands in a URL: only unreserved characters are as they were (RFC 3986, 2.3), for a `#`, `/` or `@`
/// would make another host of what follows. Clients decode it (RFC 3986, 3.2.1).
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

/// An option of `JAVA_TOOL_OPTIONS`, which Java splits at white space outside of quotes.
fn java_option(option: String) -> String {
    if !option.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"') {
        return option;
    }
    // There is no escape: a text with both quotes is put together of parts.
    let parts = option.split('"').map(|part| format!("\"{part}\""));
    parts.collect::<Vec<_>>().join("'\"'")
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
    fn credentials_make_no_other_host_of_the_proxys_url() {
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
            let surroundings = Surroundings {
                ca_dir: None,
                credentials: Some(credentials.to_owned()),
                wgetrc: None,
            };
            let address = ([127, 0, 0, 1], 4000).into();
            let all = surroundings.variables(address, address, &Env::default());
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
    fn java_takes_a_folder_with_a_space_for_one_option() {
        let plain = "-Dx=/run/ca/truststore.p12".to_owned();
        assert_eq!(java_option(plain.clone()), plain);
        assert_eq!(java_option("-Dx=/a b".to_owned()), "\"-Dx=/a b\"");
        assert_eq!(java_option("-Dx=a\"b".to_owned()), "\"-Dx=a\"'\"'\"b\"");
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
