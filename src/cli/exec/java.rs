//! Settings of Java: system properties, in `JAVA_TOOL_OPTIONS` and in variables that take precedence over it.

use std::net::SocketAddr;
use std::path::Path;

use super::direct;
use crate::config::Env;

/// Hosts that must not be called through the proxy, in the syntax of `http.nonProxyHosts`.
const DIRECT: &str = "localhost|127.*|[::1]|metadata.google.internal|metadata|169.254.169.254";

/// The property of hosts to call directly.
const NON_PROXY_HOSTS: &str = "-Dhttp.nonProxyHosts=";

/// Variables that every Java program reads.
const COMMON: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"];

/// Properties of a caller that would take precedence over ours.
const PROPERTIES: [&str; 4] = [
    NON_PROXY_HOSTS,
    "-Dhttp.proxyHost=",
    "-Dhttps.proxyHost=",
    "-Djavax.net.ssl.trustStore=",
];

/// Returns our properties as one text. `direct` are the caller's hosts to call directly.
fn options(proxy: SocketAddr, trust_store: Option<&Path>, direct: &[String]) -> String {
    let mut options = Vec::new();
    for scheme in ["http", "https"] {
        options.push(format!("-D{scheme}.proxyHost={}", proxy.ip()));
        options.push(format!("-D{scheme}.proxyPort={}", proxy.port()));
    }
    let hosts = direct.iter().map(String::as_str).chain([DIRECT]);
    let hosts = hosts.collect::<Vec<_>>().join("|");
    options.push(quoted(format!("{NON_PROXY_HOSTS}{hosts}")));
    if let Some(file) = trust_store {
        let file = file.display();
        options.push(quoted(format!("-Djavax.net.ssl.trustStore={file}")));
        options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
        options.push("-Djavax.net.ssl.trustStorePassword=changeit".to_owned());
    }
    options.join(" ")
}

/// Returns the variables with our properties after the caller's, because the last of equal properties counts. The
/// options of `MAVEN_OPTS` and similar variables are on the command line, which takes precedence over
/// `JAVA_TOOL_OPTIONS`.
pub(super) fn variables(
    proxy: SocketAddr,
    trust_store: Option<&Path>,
    env: &Env,
) -> Vec<(String, String)> {
    let mut common = direct::java_patterns(env);
    for name in COMMON {
        add_direct(&mut common, name, env);
    }
    let tool = "JAVA_TOOL_OPTIONS".to_owned();
    env.names("")
        .filter(|name| *name != tool && overrides(name, env))
        .chain([tool.clone()])
        .map(|name| {
            let mut direct = common.clone();
            add_direct(&mut direct, &name, env);
            let options = options(proxy, trust_store, &direct);
            let value = match env.text(&name) {
                Ok(Some(before)) => format!("{before} {options}"),
                _ => options,
            };
            (name, value)
        })
        .collect()
}

/// Adds the hosts of the variable's last property, because only the last one counts.
fn add_direct(hosts: &mut Vec<String>, name: &str, env: &Env) {
    let text = env.text(name).ok().flatten().unwrap_or_default();
    let words = words(text);
    let value = words
        .iter()
        .rev()
        .find_map(|word| word.strip_prefix(NON_PROXY_HOSTS));
    let found = value.into_iter().flat_map(|value| value.split('|'));
    for host in found.map(str::trim).filter(|host| !host.is_empty()) {
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }
}

/// Splits a variable's options as Java does: at white space outside of quotes. There is no escape.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_ascii_whitespace() => words.push(std::mem::take(&mut word)),
            None => word.push(c),
        }
    }
    words.push(word);
    words
}

/// Returns the variables whose trust store is replaced. The format is Java's own, so its certificates cannot be added
/// to ours.
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

/// Quotes an option for `JAVA_TOOL_OPTIONS`, which Java splits at white space outside of quotes.
fn quoted(option: String) -> String {
    if !option.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"') {
        return option;
    }
    // There is no escape, so a text with both kinds of quotes consists of several quoted parts.
    let parts = option.split('"').map(|part| format!("\"{part}\""));
    parts.collect::<Vec<_>>().join("'\"'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_space_stays_one_option() {
        let plain = "-Dx=/run/ca/truststore.p12".to_owned();
        assert_eq!(quoted(plain.clone()), plain);
        assert_eq!(quoted("-Dx=/a b".to_owned()), "\"-Dx=/a b\"");
        assert_eq!(quoted("-Dx=a\"b".to_owned()), "\"-Dx=a\"'\"'\"b\"");
    }

    #[test]
    fn properties_are_added_where_the_callers_take_precedence() {
        let env: Env = [
            ("GRADLE_OPTS", "-Dhttps.proxyHost=a"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
            ("MAVEN_OPTS", "-Xmx2g"),
            ("OTHER", "-Dhttps.proxyHost=a"),
        ]
        .into_iter()
        .collect();
        let (proxy, trust_store) = (([127, 0, 0, 1], 4001).into(), Path::new("/ca/t.p12"));
        let options = options(proxy, Some(trust_store), &[]);
        assert!(options.contains("-Dhttps.proxyPort=4001"), "{options}");
        assert!(options.contains("trustStore=/ca/t.p12 "), "{options}");
        assert_eq!(
            variables(proxy, Some(trust_store), &env),
            [
                ("GRADLE_OPTS", format!("-Dhttps.proxyHost=a {options}")),
                ("JAVA_TOOL_OPTIONS", format!("-Xmx1g {options}")),
            ]
            .map(|(name, value)| (name.to_owned(), value))
        );
    }
}
