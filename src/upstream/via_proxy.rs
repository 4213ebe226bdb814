//! Opens tunnels through `--upstream-proxy` (RFC 9110, 9.3.6), and describes the proxy's refusals.
//!
//! The response head is peeked at first, and then read to its exact length, because the next bytes belong to the
//! tunnel. A tunnel is therefore a plain socket, and TLS and HTTP do not depend on the proxy.

mod connect_response;
mod secrets;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::PROXY_AUTHENTICATE;
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::connect_response::{ConnectResponse, ConnectResponseReader};
use self::secrets::ProxySecrets;
use super::failure::{Failure, UpstreamPeer};
use super::target::RequestTarget;
use crate::config::UpstreamProxy;
use crate::destination::Host;
use crate::error::ErrorKind;

/// The number of bytes that are peeked at.
const LOOK: usize = 2048;

/// The time to read a refusal's text. The refusal does not wait longer.
const TEXT_TIMEOUT: Duration = Duration::from_millis(500);

/// The maximum number of bytes of a refusal's text, and of characters in the message.
const TEXT_BYTES: usize = 1024;
const TEXT_SHOWN: usize = 200;

/// The maximum number of authentication schemes in a message.
const SCHEMES: usize = 5;

/// Requests a tunnel to `host:port`. On success, the next byte of `stream` is the tunnel's first.
pub(super) async fn open_tunnel(
    stream: &mut TcpStream,
    peer: &UpstreamPeer,
    proxy: &UpstreamProxy,
    host: &Host,
    port: u16,
    within: Duration,
) -> Result<(), Failure> {
    let authority = format!("{host}:{port}");
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(credentials) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let asked = async {
        stream.write_all(&request).await?;
        read_response(stream).await
    };
    let broken = |error: io::Error| {
        Failure::new(
            ErrorKind::ConnectionTerminated,
            format!(
                "{peer}: the connection was closed before the response to CONNECT {authority} ({error})"
            ),
        )
    };
    let what = format!("response to CONNECT {authority}");
    let response = timeout(within, asked)
        .await
        .map_err(|_| Failure::timed_out(peer, &what, within))?
        .map_err(broken)?
        .map_err(|wrong| {
            Failure::new(
                ErrorKind::HttpProtocol,
                format!("{peer}: the proxy's response to CONNECT {authority} {wrong}"),
            )
            .before_tls()
        })?;
    // A successful response has no body, even if its head declares one.
    if response.is_success() {
        return Ok(());
    }
    let text = read_text(stream, &response).await;
    let words = [Some(response.reason.as_str()), text.as_deref()];
    let message = refusal(proxy, response.status, &words, &response.schemes());
    let for_what = format_args!("for CONNECT {authority}");
    let refused = Failure::new(
        ErrorKind::ProxyRefused,
        format!("{peer}: {message} {for_what}"),
    );
    Err(match response.status {
        408 | 429 | 500..=599 => refused.transient().retry_after(response.retry_after()),
        _ => refused,
    })
}

/// Checks a response of a forwarding proxy. 407 is always the proxy's own. Headers that repeat the proxy's credentials
/// are removed from others.
pub(super) fn check<B>(address: &RequestTarget, response: &mut Response<B>) -> Result<(), Failure> {
    match &address.proxy {
        Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let peer = UpstreamPeer {
                origin: address.origin.clone(),
                proxy: Some(Arc::clone(proxy)),
                address: None,
            };
            let schemes = schemes(response.headers());
            let message = refusal(proxy, response.status().as_u16(), &[], &schemes);
            let detail = format!("{peer}: {message}");
            Err(Failure::new(ErrorKind::ProxyRefused, detail))
        }
        Some(proxy) if proxy.authorization.is_some() => {
            let is_error = !response.status().is_success();
            ProxySecrets::of(proxy.authorization.as_ref())
                .remove_from(response.headers_mut(), is_error);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads the final head of the response, and no byte more.
async fn read_response(
    stream: &mut TcpStream,
) -> io::Result<Result<ConnectResponse, connect_response::Invalid>> {
    let mut reader = ConnectResponseReader::default();
    let mut look = vec![0; LOOK];
    loop {
        let seen = stream.peek(&mut look).await?;
        let bytes = look.get(..seen).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (taken, response) = match reader.read(bytes) {
            Ok(read) => read,
            Err(invalid) => return Ok(Err(invalid)),
        };
        stream
            .read_exact(look.get_mut(..taken).unwrap_or_default())
            .await?;
        if let Some(response) = response {
            return Ok(Ok(response));
        }
    }
}

/// Returns the start of a refusal's plain text, if the proxy sends one at once.
async fn read_text(stream: &mut TcpStream, response: &ConnectResponse) -> Option<String> {
    let length = response.text_length()?.min(TEXT_BYTES);
    let mut text = vec![0; length];
    let read = stream.read_exact(&mut text);
    matches!(timeout(TEXT_TIMEOUT, read).await, Ok(Ok(_))).then_some(())?;
    let text = String::from_utf8_lossy(&text);
    let text = text.lines().next()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Describes a refusal: its status, its text, and advice on missing credentials.
fn refusal(
    proxy: &UpstreamProxy,
    status: u16,
    words: &[Option<&str>],
    schemes: &[String],
) -> String {
    let mut message = format!("the proxy answered {status}");
    let secrets = ProxySecrets::of(proxy.authorization.as_ref());
    for words in words.iter().flatten().filter(|words| !words.is_empty()) {
        let shown: String = words
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
            .collect();
        // A proxy may echo the request.
        if !secrets.are_in(words) && !secrets.are_in(&shown) {
            message.push(' ');
            message.extend(shown.chars().take(TEXT_SHOWN));
        }
    }
    // tinyproxy answers 401 to wrong credentials.
    if matches!(status, 401 | 407) {
        message.push_str(match proxy.authorization {
            Some(_) => ": it does not accept the credentials of --upstream-proxy",
            None => ": it requires credentials (--upstream-proxy http://USER:PASSWORD@HOST:PORT)",
        });
        let known = |scheme: &&String| !secrets.are_in(scheme);
        let schemes: Vec<&str> = schemes.iter().filter(known).map(|s| &**s).collect();
        if !schemes.is_empty() && !schemes.contains(&"basic") {
            let schemes = schemes.join(", ");
            message.push_str(&format!(
                "; it accepts {schemes}, but only basic is supported"
            ));
        }
    }
    message
}

/// Returns the lower-case names of the schemes in `Proxy-Authenticate`.
fn schemes(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(PROXY_AUTHENTICATE).iter();
    values
        .filter_map(|value| scheme(value.as_bytes()))
        .take(SCHEMES)
        .collect()
}

/// Returns the first scheme of a challenge (RFC 9110, 11.3).
fn scheme(challenge: &[u8]) -> Option<String> {
    let name: Vec<u8> = challenge
        .iter()
        .copied()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'-')
        .take(20)
        .collect();
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// Parses any bytes as the response to `CONNECT`, in chunks of any size. The result and the bytes left for the tunnel
/// must not depend on the chunks. The first byte is the size.
///
/// # Panics
///
/// Panics if that does not hold.
#[cfg(any(fuzzing, test))]
pub fn fuzz_connect_answer(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let whole = connect_response::read_in_pieces(bytes, bytes.len());
    assert_eq!(
        connect_response::read_in_pieces(bytes, usize::from(*size)),
        whole
    );
    if let Ok(Some((response, rest))) = whole {
        assert!(response.status >= 200 && response.status != 101);
        assert!(bytes.ends_with(rest) && rest.len() < bytes.len());
        let head = bytes.strip_suffix(rest).unwrap_or_default();
        assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
    }
}

#[cfg(test)]
#[path = "via_proxy/tests.rs"]
mod tests;
