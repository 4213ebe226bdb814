//! Detects the protocol of a tunnel: TLS by its first six bytes, HTTP by its first line.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::prefixed_io::PrefixedIo;
use crate::frames::PREFACE;

/// The wait for the first byte. A client that sends none expects the server to speak first, which neither TLS nor HTTP
/// does.
const SILENCE: Duration = Duration::from_secs(2);

/// The wait if a rule may give a token or deny a path. A blind tunnel would bypass the rule, and some clients open a
/// tunnel before they need it.
const SILENCE_WITH_RULES: Duration = Duration::from_secs(10);

/// The time from the first byte to the end of a ClientHello or request line, equal to that for any request head.
const HESITATION: Duration = Duration::from_secs(30);

/// The buffer size, enough to read a usual ClientHello at once.
const ROOM: usize = 2 * 1024;

/// The maximum number of bytes of a line that are examined.
const LINE: usize = 16 * 1024;

/// The maximum length of a method. IANA's registry has at most 17 characters, but a method can be any token (RFC 9110,
/// 9.1).
const METHOD: usize = 1024;

/// The protocol of the first bytes in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelProtocol {
    /// The request line of HTTP/1.x (RFC 9112, 3), or the preface of HTTP/2.
    Http,
    /// The beginning of a ClientHello or of a request line, but the rest did not arrive in time or at all. It may be a
    /// request, which must not be sent in cleartext and without its token.
    Incomplete,
    /// Another protocol.
    Other,
    /// No byte arrived in time.
    Silence,
    /// A ClientHello (RFC 8446, 4 and 5.1).
    Tls,
}

/// How the first bytes of a tunnel are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SniffOptions {
    /// Whether cleartext HTTP is detected. Otherwise it counts as [`TunnelProtocol::Other`].
    pub(crate) http: bool,
    /// Whether requests inside may get a token or be denied.
    pub(crate) rules: bool,
}

/// Examines the first bytes. The returned stream still yields them.
///
/// # Errors
///
/// Fails with the error of the stream.
pub(crate) async fn sniff<S>(
    mut stream: S,
    options: SniffOptions,
) -> io::Result<(TunnelProtocol, PrefixedIo<S>)>
where
    S: AsyncRead + Unpin,
{
    let silence = if options.rules {
        SILENCE_WITH_RULES
    } else {
        SILENCE
    };
    let mut seen = BytesMut::with_capacity(ROOM);
    let mut end = Instant::now() + silence;
    let protocol = loop {
        // A short read is not conclusive: TLS may arrive byte by byte.
        if let Some(protocol) = detect(&seen, options.http) {
            break protocol;
        }
        let is_first = seen.is_empty();
        match timeout_at(end, stream.read_buf(&mut seen)).await {
            Ok(Ok(0)) | Err(_) if is_first => break TunnelProtocol::Silence,
            Ok(Ok(0)) | Err(_) => break TunnelProtocol::Incomplete,
            Ok(Ok(_)) if is_first => end = Instant::now() + HESITATION,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    };
    Ok((protocol, PrefixedIo::new(seen.freeze(), stream)))
}

/// Returns what these bytes begin, or `None` if they are not conclusive.
fn detect(seen: &[u8], http: bool) -> Option<TunnelProtocol> {
    match is_tls(seen) {
        Some(true) => return Some(TunnelProtocol::Tls),
        None => return None,
        Some(false) => {}
    }
    match http {
        false => Some(TunnelProtocol::Other),
        true => is_http(seen).map(|is| {
            if is {
                TunnelProtocol::Http
            } else {
                TunnelProtocol::Other
            }
        }),
    }
}

/// Returns whether this is a handshake record of any TLS version with a ClientHello, or `None` if it is not conclusive.
fn is_tls(seen: &[u8]) -> Option<bool> {
    let wanted = [Some(22), Some(3), None, None, None, Some(1)];
    let as_tls = wanted
        .iter()
        .zip(seen)
        .all(|(wanted, byte)| wanted.is_none_or(|wanted: u8| wanted == *byte));
    match as_tls {
        false => Some(false),
        true => (seen.len() >= wanted.len()).then_some(true),
    }
}

/// Returns whether this is a line of method, target and version, or the preface, or `None` if it is not conclusive. The
/// HTTP parser validates the rest.
fn is_http(seen: &[u8]) -> Option<bool> {
    // Empty lines before a request are skipped (RFC 9112, 2.2).
    let Some(start) = seen.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) else {
        return (seen.len() >= LINE).then_some(false);
    };
    let seen = seen.get(start..)?;
    if PREFACE.starts_with(seen) || seen.starts_with(PREFACE.as_slice()) {
        return (seen.len() >= PREFACE.len()).then_some(true);
    }
    let end = seen.iter().position(|byte| *byte == b'\n');
    let line = seen.get(..end.unwrap_or(seen.len()))?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let space = line.iter().position(|byte| *byte == b' ');
    let method = line.get(..space.unwrap_or(line.len()))?;
    let possible = !method.is_empty()
        && method.len() <= METHOD
        && method.iter().all(|byte| is_token(*byte))
        && !line.iter().any(u8::is_ascii_control);
    match (possible, end) {
        (false, _) => Some(false),
        (true, None) if line.len() < LINE => None,
        (true, None) => Some(space.is_some()),
        (true, Some(_)) => Some(space.is_some() && has_version(line)),
    }
}

fn has_version(line: &[u8]) -> bool {
    line.split_last()
        .is_some_and(|(minor, rest)| minor.is_ascii_digit() && rest.ends_with(b" HTTP/1."))
}

/// Returns whether the byte belongs to a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03rest";

    const ANYTHING: SniffOptions = SniffOptions {
        http: true,
        rules: false,
    };

    async fn read_all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_hello_sent_byte_by_byte_is_recognised_as_tls() {
        let (mut app, near) = tokio::io::duplex(1);
        let sniffing = tokio::spawn(sniff(near, ANYTHING));
        let wrote = tokio::spawn(async move {
            for byte in HELLO {
                tokio::time::sleep(Duration::from_millis(1_900)).await;
                app.write_all(&[*byte]).await.unwrap();
            }
        });
        let (protocol, stream) = sniffing.await.unwrap().unwrap();
        assert_eq!(protocol, TunnelProtocol::Tls);
        assert_eq!(read_all(stream).await, HELLO);
        wrote.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_treated_as_unknown_after_a_timeout() {
        for (rules, seconds) in [(false, 2), (true, 10)] {
            let (mut app, near) = tokio::io::duplex(64);
            let started = Instant::now();
            let options = SniffOptions { http: true, rules };
            let (protocol, stream) = sniff(near, options).await.unwrap();
            let waited = started.elapsed().as_secs();
            assert_eq!((protocol, waited), (TunnelProtocol::Silence, seconds));
            app.write_all(HELLO).await.unwrap();
            drop(app);
            assert_eq!(read_all(stream).await, HELLO);
        }
    }

    #[test]
    fn http_is_recognised_by_its_request_line_or_preface() {
        let long = format!("GET /{} ", "a".repeat(LINE));
        for (seen, http) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(true)),
            (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", Some(true)),
            (b"post http://a/?x HTTP/1.1\n", Some(true)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(true)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(true)),
            (b"GET /a b HTTP/1.1\r\n", Some(true)),
            (PREFACE.as_slice(), Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(true)),
            (long.as_bytes(), Some(true)),
            (b"", None),
            (b"\r\n", None),
            (b"G", None),
            (b"GET / HTTP/1.1", None),
            (b"GET / HTTP/1.1\r", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Some(false)),
            (b"GET /\r\n", Some(false)),
            (b"GET / HTTP/2\r\n", Some(false)),
            (b"EHLO example.com\r\n", Some(false)),
            (b"SSH-2.0-client\r\n", Some(false)),
            (b"HTTP/1.1 200 OK\r\n", Some(false)),
            (b" GET / HTTP/1.1\r\n", Some(false)),
            (b"G\x00T / HTTP/1.1\r\n", Some(false)),
            (b"\x00", Some(false)),
            (&[b'a'; METHOD + 1], Some(false)),
            (&[b'\n'; LINE], Some(false)),
        ] {
            let shown = String::from_utf8_lossy(seen);
            assert_eq!(is_http(seen), http, "{shown:?}");
            let protocol = http.map(|http| {
                if http {
                    TunnelProtocol::Http
                } else {
                    TunnelProtocol::Other
                }
            });
            assert_eq!(detect(seen, true), protocol, "{shown:?}");
            let elsewhere = (!seen.is_empty()).then_some(TunnelProtocol::Other);
            assert_eq!(detect(seen, false), elsewhere, "{shown:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_sent_byte_by_byte_is_recognised_as_http() {
        let (mut app, near) = tokio::io::duplex(1);
        let sniffing = tokio::spawn(sniff(near, ANYTHING));
        let request = b"GET / HTTP/1.1\r\n";
        let wrote = tokio::spawn(async move {
            for byte in request {
                tokio::time::sleep(Duration::from_millis(1_900)).await;
                app.write_all(&[*byte]).await.unwrap();
            }
        });
        let (protocol, stream) = sniffing.await.unwrap().unwrap();
        assert_eq!(protocol, TunnelProtocol::Http);
        assert_eq!(read_all(stream).await, request);
        wrote.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_beginning_without_its_rest_is_incomplete_after_30_seconds() {
        for beginning in [
            &b"\x16\x03"[..],
            b"G",
            b"GET /a H",
            b"\r\n",
            b"PRI * HTTP/2.0",
        ] {
            let (mut app, near) = tokio::io::duplex(64);
            let started = Instant::now();
            app.write_all(beginning).await.unwrap();
            let (protocol, _) = sniff(near, ANYTHING).await.unwrap();
            let waited = started.elapsed().as_secs();
            assert_eq!((protocol, waited), (TunnelProtocol::Incomplete, 30));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_line_that_arrives_too_slowly_is_incomplete() {
        let (mut app, near) = tokio::io::duplex(1);
        let sniffing = tokio::spawn(sniff(near, ANYTHING));
        let writing = tokio::spawn(async move {
            while app.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        });
        let (protocol, _) = sniffing.await.unwrap().unwrap();
        assert_eq!(protocol, TunnelProtocol::Incomplete);
        writing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_closes_within_its_request_line_is_incomplete() {
        let (mut app, near) = tokio::io::duplex(64);
        app.write_all(b"GET /a H").await.unwrap();
        app.shutdown().await.unwrap();
        let (protocol, _) = sniff(near, ANYTHING).await.unwrap();
        assert_eq!(protocol, TunnelProtocol::Incomplete);
    }

    proptest! {
        #[test]
        fn bytes_that_are_not_tls_are_never_recognised_as_tls(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let tls = bytes.len() >= 6 && bytes[0] == 22 && bytes[1] == 3 && bytes[5] == 1;
            prop_assert_eq!(detect(&bytes, true) == Some(TunnelProtocol::Tls), tls);
        }

        #[test]
        fn a_decision_is_final(bytes in "(GET|PRI|[ -~\\r\\n\\x00]{0,4}) [ -~\\r\\n]{0,20}( HTTP/1[.]1\r\n)?", more in any::<u8>()) {
            for http in [false, true] {
                if let Some(protocol) = detect(bytes.as_bytes(), http) {
                    let more = [bytes.as_bytes(), &[more]].concat();
                    prop_assert_eq!(detect(&more, http), Some(protocol));
                }
            }
        }
    }
}
