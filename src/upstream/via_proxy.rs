//! Tunnels through `--upstream-proxy` (RFC 9110, 9.3.6), and what the proxy says where it refuses.
//!
//! The answer's head is taken from the socket byte by byte of its own length, by looking before reading: what follows it
//! belongs to the tunnel. So a tunnel is a plain socket, and TLS and HTTP do not know of the proxy.

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
use self::secrets::Secrets;
use super::failure::{Endpoint, Failure};
use super::target::Address;
use crate::config::UpstreamProxy;
use crate::destination::Host;
use crate::error::ErrorKind;

/// Bytes that are looked at at once.
const LOOK: usize = 2048;

/// The time that a refusal's text gets; the refusal does not wait for more.
const TEXT_PATIENCE: Duration = Duration::from_millis(500);

/// Bytes of a refusal's text that are read, and characters that are shown.
const TEXT_BYTES: usize = 1024;
const TEXT_SHOWN: usize = 200;

/// Authentication schemes that are named.
const SCHEMES: usize = 5;

/// Asks the proxy for a tunnel to `host:port`. On success the next byte of `stream` is the tunnel's first.
pub(super) async fn open_tunnel(
    stream: &mut TcpStream,
    endpoint: &Endpoint,
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
                "{endpoint}: the connection broke before the answer to CONNECT {authority} ({error})"
            ),
        )
    };
    let what = format!("answer to CONNECT {authority}");
    let answer = timeout(within, asked)
        .await
        .map_err(|_| Failure::timed_out(endpoint, &what, within))?
        .map_err(broken)?
        .map_err(|wrong| {
            Failure::new(
                ErrorKind::HttpProtocol,
                format!("{endpoint}: the proxy's answer to CONNECT {authority} {wrong}"),
            )
            .before_tls()
        })?;
    // Whatever it says of a body: after a success, there is none.
    if answer.is_success() {
        return Ok(());
    }
    let text = read_text(stream, &answer).await;
    let words = [Some(answer.reason.as_str()), text.as_deref()];
    let said = refusal(proxy, answer.status, &words, &answer.schemes());
    let for_what = format_args!("for CONNECT {authority}");
    Err(Failure::new(
        ErrorKind::ProxyRefused,
        format!("{endpoint}: {said} {for_what}"),
    ))
}

/// Looks at a response of a proxy that forwards: 407 is its own, for an origin has no use for it. Any other may be its own, and
/// loses the headers that repeat the proxy's credentials.
pub(super) fn check<B>(address: &Address, response: &mut Response<B>) -> Result<(), Failure> {
    match &address.proxy {
        Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let endpoint = Endpoint {
                origin: address.origin.clone(),
                proxy: Some(Arc::clone(proxy)),
                address: None,
            };
            let schemes = schemes(response.headers());
            let said = refusal(proxy, response.status().as_u16(), &[], &schemes);
            let detail = format!("{endpoint}: {said}");
            Err(Failure::new(ErrorKind::ProxyRefused, detail))
        }
        Some(proxy) if proxy.authorization.is_some() => {
            let is_error = !response.status().is_success();
            Secrets::of(proxy.authorization.as_ref()).remove_from(response.headers_mut(), is_error);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads the answer's final head, and not a byte more.
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
        let (taken, answer) = match reader.read(bytes) {
            Ok(read) => read,
            Err(invalid) => return Ok(Err(invalid)),
        };
        stream
            .read_exact(look.get_mut(..taken).unwrap_or_default())
            .await?;
        if let Some(answer) = answer {
            return Ok(Ok(answer));
        }
    }
}

/// The start of a refusal's plain text, where it has one and sends it at once.
async fn read_text(stream: &mut TcpStream, answer: &ConnectResponse) -> Option<String> {
    let length = answer.text_length()?.min(TEXT_BYTES);
    let mut text = vec![0; length];
    let read = stream.read_exact(&mut text);
    matches!(timeout(TEXT_PATIENCE, read).await, Ok(Ok(_))).then_some(())?;
    let text = String::from_utf8_lossy(&text);
    let text = text.lines().next()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// What the proxy said, for people: its status, its words and what to do about missing credentials.
fn refusal(
    proxy: &UpstreamProxy,
    status: u16,
    words: &[Option<&str>],
    schemes: &[String],
) -> String {
    let mut said = format!("the proxy answered {status}");
    let secrets = Secrets::of(proxy.authorization.as_ref());
    for words in words.iter().flatten().filter(|words| !words.is_empty()) {
        let shown: String = words
            .chars()
            .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
            .collect();
        // A proxy may send back what it was sent.
        if !secrets.are_in(words) && !secrets.are_in(&shown) {
            said.push(' ');
            said.extend(shown.chars().take(TEXT_SHOWN));
        }
    }
    // tinyproxy answers 401 to wrong credentials.
    if matches!(status, 401 | 407) {
        said.push_str(match proxy.authorization {
            Some(_) => ": it does not accept the credentials of --upstream-proxy",
            None => ": it asks for credentials (--upstream-proxy http://USER:PASSWORD@HOST:PORT)",
        });
        let known = |scheme: &&String| !secrets.are_in(scheme);
        let schemes: Vec<&str> = schemes.iter().filter(known).map(|s| &**s).collect();
        if !schemes.is_empty() && !schemes.contains(&"basic") {
            let schemes = schemes.join(", ");
            said.push_str(&format!(
                "; it takes {schemes}, and only basic is supported"
            ));
        }
    }
    said
}

/// The names of the schemes that `Proxy-Authenticate` offers, in lower case.
fn schemes(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(PROXY_AUTHENTICATE).iter();
    values
        .filter_map(|value| scheme(value.as_bytes()))
        .take(SCHEMES)
        .collect()
}

/// The first scheme of a challenge (RFC 9110, 11.3).
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

/// Reads any bytes as the answer to `CONNECT`, in pieces of any size: the same answer or error, and the same bytes left for
/// the tunnel. The first byte is the size.
///
/// # Panics
///
/// That does not hold.
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
    if let Ok(Some((answer, rest))) = whole {
        assert!(answer.status >= 200 && answer.status != 101);
        assert!(bytes.ends_with(rest) && rest.len() < bytes.len());
        let head = bytes.strip_suffix(rest).unwrap_or_default();
        assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
    }
}

#[cfg(test)]
#[path = "via_proxy/tests.rs"]
mod tests;
