//! Upgrades always use HTTP/1.1. After them the caller has the connection's bytes.

use http::{StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{https, secure, upgrading};
use crate::support::upstream::soon;

#[tokio::test]
async fn an_upgrade_uses_http1_and_passes_bytes_both_ways() {
    let (server, client) = secure(&["h2", "http/1.1"]).await;
    client.get(&https(), "/").await.unwrap();
    let mut response = client.send(&https(), upgrading("/upgrade")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(&mut response);
    drop(response);
    let mut stream = TokioIo::new(soon(upgraded).await.unwrap());
    for word in [b"one", b"two"] {
        stream.write_all(word).await.unwrap();
        stream.flush().await.unwrap();
        let mut echo = [0; 3];
        soon(stream.read_exact(&mut echo)).await.unwrap();
        assert_eq!(&echo, word);
    }
    let seen = server.seen();
    let versions: Vec<_> = seen.iter().map(|seen| seen.version).collect();
    assert_eq!(versions, [Version::HTTP_2, Version::HTTP_11]);
    assert_eq!(seen[1].alpn.as_deref(), Some("http/1.1"));
    assert_eq!(seen[1].headers["upgrade"], "echo");
    assert_eq!(seen[1].headers["connection"], "upgrade");
    // The connection counts as open as long as the caller keeps it.
    client.connections(2).await;
    drop(stream);
    client.connections(1).await;
    server.open(1).await;
}

#[tokio::test]
async fn a_declined_upgrade_is_an_ordinary_response() {
    let (server, client) = secure(&["h2", "http/1.1"]).await;
    for _ in 0..3 {
        let response = client.send(&https(), upgrading("/")).await.unwrap();
        assert_eq!(response.status(), 200);
        crate::client::whole(response).await;
    }
    assert_eq!(server.accepted(), 1);
}
