//! How a tunnel begins: TLS says so in its first six bytes.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::rewind::Rewind;

/// Whoever has said nothing by then waits for the other side to speak first, as TLS never does.
const SILENCE: Duration = Duration::from_secs(2);

/// What has begun like TLS gets longer for the rest of it.
const HESITATION: Duration = Duration::from_secs(10);

/// Room for a usual ClientHello, so that one read takes it.
const ROOM: usize = 2 * 1024;

/// The first bytes of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A ClientHello (RFC 8446, 4 and 5.1).
    Tls,
    /// Anything else, or nothing.
    Other,
}

/// Looks at the first bytes; the stream that is given back still has them.
///
/// # Errors
///
/// The stream's own.
pub async fn sniff<S>(mut stream: S) -> io::Result<(Opening, Rewind<S>)>
where
    S: AsyncRead + Unpin,
{
    let mut seen = BytesMut::with_capacity(ROOM);
    let opening = loop {
        // A short read decides nothing: a byte at a time is TLS too.
        if let Some(opening) = judge(&seen) {
            break opening;
        }
        let patience = if seen.is_empty() { SILENCE } else { HESITATION };
        match timeout(patience, stream.read_buf(&mut seen)).await {
            Ok(Ok(0)) | Err(_) => break Opening::Other,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    };
    Ok((opening, Rewind::new(seen.freeze(), stream)))
}

/// A handshake record of any TLS version, and in it a ClientHello; `None` while both is possible.
fn judge(seen: &[u8]) -> Option<Opening> {
    let wanted = [Some(22), Some(3), None, None, None, Some(1)];
    let as_tls = wanted
        .iter()
        .zip(seen)
        .all(|(wanted, byte)| wanted.is_none_or(|wanted: u8| wanted == *byte));
    match as_tls {
        false => Some(Opening::Other),
        true => (seen.len() >= wanted.len()).then_some(Opening::Tls),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03rest";

    async fn again(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_that_comes_byte_by_byte_is_tls_and_whole() {
        let (mut app, ours) = tokio::io::duplex(1);
        let sniffing = tokio::spawn(sniff(ours));
        let wrote = tokio::spawn(async move {
            for byte in HELLO {
                tokio::time::sleep(Duration::from_millis(1_900)).await;
                app.write_all(&[*byte]).await.unwrap();
            }
        });
        let (opening, stream) = sniffing.await.unwrap().unwrap();
        assert_eq!(opening, Opening::Tls);
        assert_eq!(again(stream).await, HELLO);
        wrote.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_two_seconds_and_loses_nothing() {
        let (mut app, ours) = tokio::io::duplex(64);
        let started = tokio::time::Instant::now();
        let (opening, stream) = sniff(ours).await.unwrap();
        assert_eq!((opening, started.elapsed()), (Opening::Other, SILENCE));
        app.write_all(HELLO).await.unwrap();
        drop(app);
        assert_eq!(again(stream).await, HELLO);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_hello_is_given_back_too() {
        let (mut app, ours) = tokio::io::duplex(64);
        app.write_all(b"\x16\x03").await.unwrap();
        let (opening, stream) = sniff(ours).await.unwrap();
        assert_eq!(opening, Opening::Other);
        drop(app);
        assert_eq!(again(stream).await, b"\x16\x03");
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_tls_that_are_none(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let tls = bytes.len() >= 6 && bytes[0] == 22 && bytes[1] == 3 && bytes[5] == 1;
            prop_assert_eq!(judge(&bytes) == Some(Opening::Tls), tls);
            // What one byte more cannot change is decided.
            if judge(&bytes) == Some(Opening::Other) {
                let more = [&*bytes, &[1]].concat();
                prop_assert_eq!(judge(&more), Some(Opening::Other));
            }
        }
    }
}
