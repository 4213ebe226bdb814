//! `--upstream-proxy` and `--no-upstream-proxy`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

use super::super::diagnostic::{Diagnostic, DiagnosticId, quote, quote_unless_secret};
use super::super::options::OptionKey;
use super::super::raw::{RawConfig, variable_place};
use super::super::{Listen, Route, UpstreamProxy};
use crate::destination::{Host, Origin, Scheme, equivalents};
use crate::policy::{EgressProxy, NoProxy, NoProxyEntry};

const FORM: &str = "http://[USER:PASSWORD@]HOST:PORT";

/// The parts of a proxy's URL.
struct Url {
    host: Host,
    port: u16,
    authorization: Option<HeaderValue>,
}

// === impl UpstreamProxy ===

impl UpstreamProxy {
    /// Returns whether this variable of the environment names the proxy.
    pub fn is_from_variable(&self, variable: &str) -> bool {
        *self.place == *variable_place(variable)
    }
}

/// Checks whether `text` is a valid `--upstream-proxy`.
///
/// # Errors
///
/// Returns the accepted form, without a part of the text that may be a password.
pub fn check_upstream_proxy(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// Resolves `--upstream-proxy`. The metadata server is never called through the proxy.
pub(super) fn resolve(
    raw: &RawConfig,
    no_proxy: NoProxy,
    metadata: (Host, u16),
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Arc<UpstreamProxy>> {
    let text = raw
        .value(OptionKey::UpstreamProxy)
        .filter(|text| text.value != "off")?;
    let url = match parse(&text.value) {
        Ok(url) => url,
        Err(message) => {
            diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message));
            return None;
        }
    };
    let egress = EgressProxy {
        host: url.host,
        port: url.port,
        no_proxy,
        metadata,
    };
    if egress.is_metadata(&egress.host, egress.port) {
        diagnostics.push(text.diagnostic(
            DiagnosticId::InvalidValue,
            format!("{egress} is the metadata server, not a proxy"),
        ));
    }
    Some(Arc::new(UpstreamProxy {
        egress,
        authorization: url.authorization,
        place: Arc::clone(&text.place),
    }))
}

/// Checks that the proxy is not one of the sidecar's own listeners, because every call would come back.
pub(super) fn check_loop(
    proxy: &UpstreamProxy,
    listeners: &[Option<SocketAddr>],
    routes: &[(String, Route)],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let routes = routes.iter().map(|(_, route)| match route.listen {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    });
    let own = listeners.iter().copied().chain(routes).flatten();
    let egress = &proxy.egress;
    if own
        .into_iter()
        .any(|own| own.port() == egress.port && reaches(&egress.host, own.ip()))
    {
        diagnostics.push(Diagnostic::new(
            DiagnosticId::ProxyLoop,
            &*proxy.place,
            format!("{egress} is a listener of the sidecar itself: name another proxy, or off"),
        ));
    }
}

/// Returns whether `host` is the address of a listener on `bound`, as far as the texts show.
fn reaches(host: &Host, bound: IpAddr) -> bool {
    let bound = bound.to_canonical();
    let local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    let meets = |ip: IpAddr| {
        ip == bound || local(ip) && local(bound) && ip.is_ipv4() == bound.is_ipv4()
        // A wildcard listener of one address family may also accept the other.
        || bound.is_unspecified() && local(ip)
    };
    match host {
        Host::Ip(ip) => equivalents(*ip).any(meets),
        Host::Name(_) if host.is_loopback() => {
            meets(Ipv4Addr::LOCALHOST.into()) || meets(Ipv6Addr::LOCALHOST.into())
        }
        Host::Name(_) => false,
    }
}

/// Resolves `--no-upstream-proxy`.
pub(super) fn no_proxy(raw: &RawConfig, diagnostics: &mut Vec<Diagnostic>) -> NoProxy {
    let mut entries = Vec::new();
    for text in raw.list(OptionKey::NoUpstreamProxy) {
        for entry in NoProxy::split(&text.value) {
            match NoProxyEntry::parse(entry) {
                Some(entry) => entries.push(entry),
                None => diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, match quote_unless_secret(entry) {
                    Some(entry) => format!(
                        "{entry} must be a host, .suffix, address or CIDR block, with an optional :PORT, or *"
                    ),
                    None => "write hosts, .suffixes, addresses or CIDR blocks".to_owned(),
                })),
            }
        }
    }
    entries.into_iter().collect()
}

/// Parses the URL. No message repeats a text that may contain a password.
fn parse(text: &str) -> Result<Url, String> {
    let wrong = || match quote_unless_secret(text) {
        Some(text) => format!("{text} must be {FORM}, or off"),
        None => format!("write {FORM}, or off"),
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    match &*scheme.to_ascii_lowercase() {
        "http" => {}
        known @ ("https" | "socks" | "socks4" | "socks4a" | "socks5" | "socks5h") => {
            return Err(format!(
                "{known}:// proxies are not supported: name an HTTP proxy, {FORM}"
            ));
        }
        _ => return Err(wrong()),
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '\\']) {
        return Err(format!(
            "write {FORM}, with /, ?, # and \\ of the password percent-encoded, and nothing after the port"
        ));
    }
    let (userinfo, authority) = match authority.rsplit_once('@') {
        Some((userinfo, authority)) => (userinfo, authority),
        None => ("", authority),
    };
    let origin = Origin::from_authority(Scheme::Http, authority).map_err(|_| wrong())?;
    Ok(Url {
        host: origin.host,
        port: origin.port,
        authorization: authorization(userinfo)?,
    })
}

/// The value of `Proxy-Authorization` (RFC 7617) for `USER[:PASSWORD]`, both percent-encoded.
fn authorization(userinfo: &str) -> Result<Option<HeaderValue>, String> {
    if userinfo.is_empty() {
        return Ok(None);
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (user, password) = (decoded(user)?, decoded(password)?);
    if user.contains(&b':') {
        return Err("the proxy's user name must not contain a colon".to_owned());
    }
    let credentials = [&*user, b":", &*password].concat();
    if credentials.iter().any(u8::is_ascii_control) {
        return Err("the proxy's credentials must not contain control characters".to_owned());
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
        .map_err(|_| format!("write {FORM}"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut escapes = text.split('%').skip(1);
    let hex = |escape: &str| {
        escape
            .as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.all(hex) {
        let percent = quote("%25");
        return Err(format!(
            "a % in the proxy's credentials must begin an escape: write {percent} for the character itself"
        ));
    }
    Ok(percent_decode_str(text).collect())
}

#[cfg(test)]
#[path = "upstream_proxy/tests.rs"]
mod tests;
