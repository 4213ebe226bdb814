//! The addresses of listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::PathAndQuery;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::super::Listen;
use super::super::diagnostic::quote;

/// The end of a socket's path, and the beginning of a prefix.
const SOCK: &str = ".sock/";

/// Returns whether the text is a `PORT` only. It means 127.0.0.1 and, if the machine has it, ::1, because `localhost`
/// may be either.
pub(in crate::config) fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses an address. Also returns whether the text is a port only.
pub(in crate::config) fn address_or_port(text: &str) -> Result<(SocketAddr, bool), String> {
    Ok((address(text)?, is_port(text)))
}

/// Prints what [`address_or_port`] parses.
pub(in crate::config) fn printed(address: SocketAddr, is_port_alone: bool) -> String {
    match is_port_alone {
        true => address.port().to_string(),
        false => address.to_string(),
    }
}

/// Parses `PORT` (on 127.0.0.1), `ADDR:PORT`, `[IPV6]:PORT` or `localhost:PORT`. Port 0 takes a free port.
pub(in crate::config) fn address(text: &str) -> Result<SocketAddr, String> {
    let port = |port: &str| port.parse::<u16>().ok().filter(|_| is_port(port));
    if let Some(port) = port(text) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        format!(
            "{} must be PORT, ADDR:PORT or [IPV6]:PORT, like 127.0.0.1:8081",
            quote(text)
        )
    })
}

/// Parses a route's `LISTEN`: an address or `unix:PATH`, and a prefix: `8081/v1`, `unix:/run/x.sock:/v1`.
///
/// The path of a socket contains slashes itself, so the prefix follows a colon, or the end `.sock` of the path.
pub(in crate::config) fn parse(text: &str) -> Result<(Listen, String), String> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let end = rest
            .find(":/")
            .or_else(|| Some(rest.find(SOCK)? + SOCK.len() - 1));
        let (path, prefix) = rest.split_at(end.unwrap_or(rest.len()));
        let prefix = prefix.trim_start_matches(':');
        return Ok((unix(path)?, self::prefix(prefix)?));
    }
    let (address, prefix) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        None => (text, ""),
    };
    let listen = self::address(address).map_err(|_| {
        format!(
            "{} must be PORT, ADDR:PORT or unix:PATH, and may end in /PREFIX (unix:PATH:/PREFIX)",
            quote(text)
        )
    })?;
    Ok((Listen::Tcp(listen), self::prefix(prefix)?))
}

/// Parses a path prefix and removes its trailing slash. `/` means all paths.
pub(in crate::config) fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let whole = trimmed.is_empty()
        || (trimmed.starts_with('/')
            && trimmed
                .split('/')
                .skip(1)
                .all(|segment| !matches!(segment, "" | "." | ".."))
            && !trimmed.contains(['?', '#'])
            && trimmed.parse::<PathAndQuery>().is_ok());
    if !trimmed.is_ascii() {
        let encoded = utf8_percent_encode(trimmed, CONTROLS);
        Err(format!(
            "prefix {} must be percent-encoded: {encoded}",
            quote(text)
        ))
    } else if whole {
        Ok(trimmed.to_owned())
    } else {
        Err(format!("prefix {} must be a path, like /v1", quote(text)))
    }
}

fn unix(path: &str) -> Result<Listen, String> {
    // sun_path of sockaddr_un holds 108 bytes with the final zero (unix(7)).
    if path.is_empty() || path.len() > 107 || path.contains('\0') {
        return Err(format!(
            "unix:{} must be unix: and a path of 1 to 107 bytes",
            quote(path)
        ));
    }
    Ok(Listen::Unix(path.into()))
}

// === impl Listen ===

impl Listen {
    /// Returns whether only this machine can reach it: loopback, or a unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => is_loopback(address),
            Self::Unix(_) => true,
        }
    }

    /// Returns whether two listeners cannot be open on both at the same time.
    pub(in crate::config) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
                one.port() == other.port()
                    && one.port() != 0
                    && (a == b || takes(a, b) || takes(b, a))
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }
}

pub(in crate::config) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Returns whether a wildcard address includes `address`: `0.0.0.0` includes IPv4, `[::]` both families (the default on
/// Linux).
fn takes(wildcard: IpAddr, address: IpAddr) -> bool {
    wildcard.is_unspecified() && (wildcard.is_ipv6() || address.is_ipv4())
}
