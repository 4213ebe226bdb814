//! `CONNECT` on a stream: an ordinary tunnel; the extended form is refused (RFC 8441).

use bytes::Bytes;
use h2::Reason;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::frames::{HEADERS, RST_STREAM, Raw, SETTINGS, frame, get, literal, named};
use super::support::streams::{app, open, whole};
use super::support::upstream::soon;
use super::{HOST, started};

#[tokio::test]
async fn extended_connect_is_not_offered_and_fails_only_its_own_stream() {
    let (service, _metadata, sidecar) = started().await;
    let mut app = Raw::open(sidecar.proxy()).await;
    let settings = app.find(SETTINGS).await;
    let offered = settings
        .payload
        .chunks(6)
        .any(|setting| setting[..2] == [0, 8] && setting[2..] != [0; 4]);
    assert!(!offered, "SETTINGS_ENABLE_CONNECT_PROTOCOL in {settings:?}");

    let mut block = literal(2, "CONNECT");
    block.extend(named(":protocol", "websocket"));
    block.extend([0x87]);
    block.extend(literal(4, "/chat"));
    block.extend(literal(1, HOST));
    app.write(&frame(HEADERS, 0x4, 1, &block)).await;
    let refused = app.find(RST_STREAM).await;
    assert_eq!(refused.stream, 1);

    app.write(&get(3, "/kept")).await;
    let kept = service.next().await;
    assert_eq!(kept.head.uri.path(), "/kept");
    kept.answer("kept");
    assert_eq!(app.find(HEADERS).await.stream, 3);
}

#[tokio::test]
async fn a_tunnel_on_a_stream_carries_both_ways_and_ends_with_either_side() {
    let (_service, _metadata, sidecar) = started().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = app(sidecar.proxy()).await;
    let connect = || {
        Request::connect(listener.local_addr().unwrap().to_string())
            .body(())
            .unwrap()
    };
    // The upstream ends the tunnel.
    let (response, mut up) = open(&app, connect(), false).await;
    let (mut upstream, _) = soon(listener.accept()).await.unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    up.send_data(Bytes::from("ping"), false).unwrap();
    let mut ping = [0; 4];
    soon(upstream.read_exact(&mut ping)).await.unwrap();
    assert_eq!(&ping, b"ping");
    upstream.write_all(b"pong").await.unwrap();
    let down = response.body_mut();
    assert_eq!(soon(down.data()).await.unwrap().unwrap(), "pong");
    upstream.shutdown().await.unwrap();
    assert_eq!(whole(down).await.unwrap().0, "");
    up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon(upstream.read(&mut ping)).await.unwrap(), 0);

    // The app resets the stream.
    let (response, mut up) = open(&app, connect(), false).await;
    let (mut upstream, _) = soon(listener.accept()).await.unwrap();
    let _response = soon(response).await.unwrap();
    up.send_reset(Reason::CANCEL);
    assert!(matches!(
        soon(upstream.read(&mut ping)).await,
        Ok(0) | Err(_)
    ));
}
