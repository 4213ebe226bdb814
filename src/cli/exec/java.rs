//! What Java reads: system properties, in `JAVA_TOOL_OPTIONS` and variables that win over it.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::Env;

/// Hosts that must not be called through the proxy, in the syntax of `http.nonProxyHosts`.
const DIRECT: &str = "localhost|127.*|[::1]|metadata.google.internal|metadata|169.254.169.254";

/// Properties of a caller that would win over ours.
const PROPERTIES: [&str; 3] = [
    "-Dhttp.proxyHost=",
    "-Dhttps.proxyHost=",
    "-Djavax.net.ssl.trustStore=",
];

/// Our properties, as one text.
pub(super) fn options(proxy: SocketAddr, trust_store: Option<&Path>) -> String {
    let mut options = Vec::new();
    for scheme in ["http", "https"] {
        options.push(format!("-D{scheme}.proxyHost={}", proxy.ip()));
        options.push(format!("-D{scheme}.proxyPort={}", proxy.port()));
    }
    options.push(format!("-Dhttp.nonProxyHosts={DIRECT}"));
    if let Some(file) = trust_store {
        let file = file.display();
        options.push(quoted(format!("-Djavax.net.ssl.trustStore={file}")));
        options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
        options.push("-Djavax.net.ssl.trustStorePassword=changeit".to_owned());
    }
    options.join(" ")
}

/// Variables with our properties after the caller's: the last of equal ones counts. `MAVEN_OPTS` and the like stand on
/// the command line, which wins over `JAVA_TOOL_OPTIONS`.
pub(super) fn variables(options: &str, env: &Env) -> Vec<(String, String)> {
    let tool = "JAVA_TOOL_OPTIONS".to_owned();
    env.names("")
        .filter(|name| *name != tool && overrides(name, env))
        .chain([tool.clone()])
        .map(|name| {
            let value = match env.text(&name) {
                Ok(Some(before)) => format!("{before} {options}"),
                _ => options.to_owned(),
            };
            (name, value)
        })
        .collect()
}

/// Variables whose trust store is replaced: its format is Java's own, so its certificates cannot be taken over.
pub(super) fn replaced_trust_stores(env: &Env) -> impl Iterator<Item = String> + '_ {
    env.names("").filter(|name| {
        is_options(name)
            && matches!(env.text(name), Ok(Some(value)) if value.contains("-Djavax.net.ssl.trustStore="))
    })
}

fn overrides(name: &str, env: &Env) -> bool {
    is_options(name)
        && matches!(env.text(name), Ok(Some(value)) if PROPERTIES.iter().any(|set| value.contains(set)))
}

fn is_options(name: &str) -> bool {
    ["_OPTS", "_OPTIONS"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// An option of `JAVA_TOOL_OPTIONS`, which Java splits at white space outside of quotes.
fn quoted(option: String) -> String {
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

    #[test]
    fn a_folder_with_a_space_stays_one_option() {
        let plain = "-Dx=/run/ca/truststore.p12".to_owned();
        assert_eq!(quoted(plain.clone()), plain);
        assert_eq!(quoted("-Dx=/a b".to_owned()), "\"-Dx=/a b\"");
        assert_eq!(quoted("-Dx=a\"b".to_owned()), "\"-Dx=a\"'\"'\"b\"");
    }

    #[test]
    fn properties_are_added_where_the_callers_would_win() {
        let env: Env = [
            ("GRADLE_OPTS", "-Dhttps.proxyHost=a"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
            ("MAVEN_OPTS", "-Xmx2g"),
            ("OTHER", "-Dhttps.proxyHost=a"),
        ]
        .into_iter()
        .collect();
        let options = options(([127, 0, 0, 1], 4001).into(), Some(Path::new("/ca/t.p12")));
        assert!(options.contains("-Dhttps.proxyPort=4001"), "{options}");
        assert!(options.contains("trustStore=/ca/t.p12 "), "{options}");
        assert_eq!(
            variables(&options, &env),
            [
                ("GRADLE_OPTS", format!("-Dhttps.proxyHost=a {options}")),
                ("JAVA_TOOL_OPTIONS", format!("-Xmx1g {options}")),
            ]
            .map(|(name, value)| (name.to_owned(), value))
        );
    }
}
