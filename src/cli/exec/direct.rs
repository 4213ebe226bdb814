//! The hosts that the command calls without the sidecar: those of the caller's `NO_PROXY` and of Java's property.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::Env;

/// Hosts that are always called directly: this machine and its metadata server.
const OURS: &str = "localhost,127.0.0.1,::1,metadata.google.internal,metadata,169.254.169.254";

/// Domains of Google whose calls get a token.
const GOOGLE: [&str; 3] = ["googleapis.com", "run.app", "cloudfunctions.net"];

/// Returns the value of `NO_PROXY`: the caller's hosts as written, then [`OURS`].
pub(super) fn list(env: &Env) -> String {
    match callers(env) {
        hosts if hosts.is_empty() => OURS.to_owned(),
        hosts => format!("{hosts},{OURS}"),
    }
}

/// Returns the caller's hosts in the syntax of `http.nonProxyHosts`, without duplicates.
pub(super) fn java_patterns(env: &Env) -> Vec<String> {
    let mut patterns = Vec::new();
    for pattern in entries(&callers(env)).flat_map(java) {
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    patterns
}

/// Returns a warning that names the entries by which calls to Google bypass the sidecar.
pub(super) fn notice(env: &Env) -> Option<String> {
    let callers = callers(env);
    let mut names: Vec<String> = Vec::new();
    for entry in entries(&callers).filter(|entry| covers_google(entry)) {
        let name = format!("{entry:?}");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| {
        format!(
            "environment NO_PROXY: calls to {} go past the sidecar and get no token. Remove the entry for calls through \
             the sidecar; for the sidecar's own calls, give it to --no-upstream-proxy",
            names.join(", ")
        )
    })
}

/// Merges both variables, because a client reads one or the other.
pub(super) fn callers(env: &Env) -> String {
    let value = |name: &str| env.text(name).ok().flatten().unwrap_or("").to_owned();
    match (value("NO_PROXY"), value("no_proxy")) {
        (upper, lower) if upper.is_empty() || upper == lower => lower,
        (upper, lower) if lower.is_empty() => upper,
        (upper, lower) => format!("{upper},{lower}"),
    }
}

/// Splits at commas and white space, because clients accept one or the other.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
}

fn covers_google(entry: &str) -> bool {
    let pattern = host(entry).to_ascii_lowercase();
    let (name, is_suffix) = match pattern.strip_prefix('*') {
        Some("") => return true,
        Some(rest) => (rest, !rest.starts_with('.')),
        None => (&*pattern, false),
    };
    let name = name.trim_start_matches('.');
    let is_below = |lower: &str, upper: &str| {
        lower
            .strip_suffix(upper)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !name.is_empty()
        && GOOGLE.iter().any(|domain| {
            is_below(domain, name) || is_below(name, domain) || is_suffix && domain.ends_with(name)
        })
}

/// Removes the port, the brackets of an IPv6 address and the trailing dot.
fn host(entry: &str) -> &str {
    if entry.parse::<IpAddr>().is_ok() {
        return entry;
    }
    if let Some((address, _)) = entry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return address;
    }
    let host = match entry.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => entry,
    };
    host.trim_end_matches('.')
}

/// Converts an entry for Java, which compares text without ports. An asterisk is allowed at either end.
fn java(entry: &str) -> Vec<String> {
    if let Some((network, bits)) = entry.split_once('/') {
        return network_patterns(network, bits);
    }
    let host = host(entry);
    match host.parse() {
        Ok(IpAddr::V4(address)) => return vec![address.to_string()],
        Ok(IpAddr::V6(address)) => return vec![format!("[{address}]")],
        Err(_) => {}
    }
    let is_plain = |c: char| c.is_alphanumeric() || "-._*".contains(c);
    if !host.chars().all(is_plain) {
        return Vec::new();
    }
    match host.trim_start_matches('.') {
        "" => Vec::new(),
        pattern if pattern.starts_with('*') => vec![pattern.to_owned()],
        name => vec![name.to_owned(), format!("*.{name}")],
    }
}

/// Returns an IPv4 network as at most 128 prefixes of whole octets. IPv6 is not supported, because addresses have
/// several spellings.
fn network_patterns(network: &str, bits: &str) -> Vec<String> {
    let (Ok(network), Ok(bits @ 0..=32)) = (network.parse::<Ipv4Addr>(), bits.parse::<u32>())
    else {
        return Vec::new();
    };
    let octets = bits.div_ceil(8);
    if octets == 0 {
        // Here the entry is a block of addresses, not a name.
        return (0..10).map(|digit| format!("{digit}*")).collect();
    }
    let free = 32 - octets * 8;
    let size = 1_u64 << (octets * 8 - bits);
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let first = u64::from(network.to_bits() & mask);
    (0..size)
        .filter_map(|index| u32::try_from(first + (index << free)).ok())
        .map(|address| {
            let text = Ipv4Addr::from_bits(address).to_string();
            let kept = usize::try_from(octets).unwrap_or(4);
            let parts: Vec<&str> = text.split('.').take(kept).collect();
            let rest = if kept < 4 { ".*" } else { "" };
            format!("{}{rest}", parts.join("."))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_written_as_java_reads_them() {
        for (entry, expected) in [
            ("db.internal", &["db.internal", "*.db.internal"][..]),
            (".db.internal:8443", &["db.internal", "*.db.internal"]),
            ("*.db.internal", &["*.db.internal"]),
            ("*", &["*"]),
            ("10.1.2.3", &["10.1.2.3"]),
            ("::1", &["[::1]"]),
            ("[fd00::1]:80", &["[fd00::1]"]),
            ("10.0.0.0/8", &["10.*"]),
            ("10.1.0.0/15", &["10.0.*", "10.1.*"]),
            ("10.1.2.3/32", &["10.1.2.3"]),
            ("10.1.2.3/31", &["10.1.2.2", "10.1.2.3"]),
            ("192.168.7.0/24", &["192.168.7.*"]),
            ("fd00::/8", &[]),
            ("10.0.0.0/33", &[]),
            ("a|b", &[]),
            ("\"", &[]),
            (".", &[]),
        ] {
            assert_eq!(java(entry), expected, "{entry}");
        }
        assert_eq!(java("255.0.0.0/1").len(), 128);
    }
}
