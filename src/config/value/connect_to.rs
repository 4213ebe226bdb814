//! `--connect-to`, with the syntax of curl.

use std::fmt;

use super::super::diagnostic::quote;
use super::super::{ConnectHost, ConnectTo};
use crate::destination::Host;

/// Parses `HOST:PORT:HOST2:PORT2`. Any part may be empty; IPv6 addresses are in brackets.
pub(in crate::config) fn parse(text: &str) -> Result<ConnectTo, String> {
    split(text).ok_or_else(|| {
        format!(
            "{} must be HOST:PORT:HOST2:PORT2, like storage.googleapis.com:443:127.0.0.1:8443",
            quote(text)
        )
    })
}

fn split(text: &str) -> Option<ConnectTo> {
    let (host, rest) = part(text)?;
    let (from_port, rest) = part(rest?)?;
    let (to_host, rest) = part(rest?)?;
    let (to_port, None) = part(rest?)? else {
        return None;
    };
    Some(ConnectTo {
        host: connect_host(host)?,
        port: port(from_port)?,
        to_host: match to_host {
            "" => None,
            host => Some(Host::parse(host).ok()?),
        },
        to_port: port(to_port)?,
    })
}

/// Returns the text up to the next colon outside brackets, and the text after it.
fn part(text: &str) -> Option<(&str, Option<&str>)> {
    let start = match text.starts_with('[') {
        true => text.find(']')?,
        false => 0,
    };
    match text.get(start..)?.find(':') {
        Some(colon) => {
            let (part, rest) = text.split_at(start + colon);
            Some((part, Some(rest.strip_prefix(':')?)))
        }
        None => Some((text, None)),
    }
}

fn connect_host(text: &str) -> Option<ConnectHost> {
    match text.strip_prefix('*') {
        Some("") => Some(ConnectHost::Any),
        Some(suffix) => {
            let name = Host::parse(suffix.strip_prefix('.')?).ok()?;
            Some(ConnectHost::Suffix(format!(".{}", name.name()?)))
        }
        None if text.is_empty() => Some(ConnectHost::Any),
        None => Some(ConnectHost::Exact(Host::parse(text).ok()?)),
    }
}

/// Parses a port. The inner `None` is an empty part: any port, or the same port.
fn port(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0)?;
    Some(Some(port))
}

impl fmt::Display for ConnectTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ConnectHost::Any => f.write_str("*")?,
            ConnectHost::Exact(host) => host.fmt(f)?,
            ConnectHost::Suffix(suffix) => write!(f, "*{suffix}")?,
        }
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        let to_host = self
            .to_host
            .as_ref()
            .map(Host::to_string)
            .unwrap_or_default();
        write!(f, ":{}:{to_host}:{}", port(self.port), port(self.to_port))
    }
}
