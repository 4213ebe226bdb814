//! Idle HTTP/1.1 connections that are parked: they hold less memory, and carry the next request.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::client::{NAME, Setting, get, http, https, request, whole};
use crate::support::hostile::{HELLO, Hostile, until_closed};
use crate::support::tls::TestCa;
use crate::support::upstream::{Honest, Manner, text};

/// The first sweep, after a quarter of it, parks connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

fn setting(server: std::net::SocketAddr, ca: Option<&TestCa>) -> Setting {
    Setting::new(server, ca).with(|setting| setting.config.idle_timeout = IDLE_TIMEOUT)
}

/// Returns an upstream that answers the first request of each connection, and then sends `last` and closes it, once it is
/// notified.
async fn upstream(last: &'static str) -> (Hostile, Arc<Notify>) {
    let now = Arc::new(Notify::new());
    let notified = Arc::clone(&now);
    let server = Hostile::start(move |mut stream, stage| {
        let now = Arc::clone(&notified);
        async move {
            stage.head(&mut stream).await;
            stream.write_all(HELLO.as_bytes()).await.unwrap();
            now.notified().await;
            stream.write_all(last.as_bytes()).await.unwrap();
            if last.is_empty() {
                return;
            }
            until_closed(&mut stream).await;
        }
    })
    .await;
    (server, now)
}

#[tokio::test]
async fn a_parked_connection_carries_the_next_requests() {
    let ca = TestCa::new();
    for tls in [false, true] {
        let server = Honest::start(Manner {
            tls: tls.then(|| ca.leaf(&[NAME]).serving(&["http/1.1"])),
            ..Manner::default()
        })
        .await;
        let client = setting(server.address, Some(&ca)).client();
        let target = if tls { https() } else { http() };
        for _ in 0..2 {
            client.get(&target, "/bytes/100000").await.unwrap();
            client.parked(1).await;
            client.connections(1).await;
        }
        let sent = request(Method::POST, "/echo", text("ping"));
        let response = client.send(&target, sent).await.unwrap();
        assert_eq!(whole(response).await, "ping");
        client.get(&target, "/").await.unwrap();
        assert_eq!(server.accepted(), 1);
    }
}

#[tokio::test]
async fn each_of_many_requests_gets_its_own_parked_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = setting(server.address, None).client();
    for _ in 0..2 {
        let held: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.upstream.send(&http(), get("/hold"))))
            .collect();
        server.held(10).await;
        server.release();
        for held in held {
            assert_eq!(whole(held.await.unwrap().unwrap()).await, "held");
        }
        client.parked(10).await;
    }
    assert_eq!(server.accepted(), 10);
}

#[tokio::test]
async fn a_close_of_a_parked_connection_is_noticed_at_once() {
    let (server, close) = upstream("").await;
    let client = setting(server.address, None).client();
    client.get(&http(), "/").await.unwrap();
    client.parked(1).await;
    close.notify_one();
    client.connections(0).await;
    client.get(&http(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
}

/// Otherwise the bytes would be the response to the next request.
#[tokio::test]
async fn a_response_without_a_request_closes_a_parked_connection() {
    let (server, send) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    let client = setting(server.address, None).client();
    client.get(&http(), "/").await.unwrap();
    client.parked(1).await;
    send.notify_one();
    server.closed(1).await;
    client.connections(0).await;
    assert_eq!(client.get(&http(), "/").await.unwrap().1, "hello");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_parked_connection_is_closed_after_the_idle_timeout_and_by_the_limit() {
    let server = Honest::start(Manner::default()).await;
    let client = setting(server.address, None).client();
    client.get(&http(), "/").await.unwrap();
    client.parked(1).await;
    client.connections(0).await;
    server.open(0).await;
    client.get(&http(), "/").await.unwrap();
    client.parked(1).await;
    client.upstream.close_idle();
    client.connections(0).await;
    server.open(0).await;
    client.parked(0).await;
    assert_eq!(server.accepted(), 2);
}

/// hyper completes an upgrade only on a connection that cannot be parked.
#[tokio::test]
async fn an_upgrade_succeeds_beside_a_parked_connection_and_after_a_refused_one() {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(&["http/1.1"])),
        ..Manner::default()
    })
    .await;
    let client = setting(server.address, Some(&ca)).client();
    let upgrading = |path| {
        let mut request = get(path);
        let headers = request.headers_mut();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("echo"));
        request
    };
    client.get(&https(), "/").await.unwrap();
    client.parked(1).await;
    let refused = client.send(&https(), upgrading("/")).await.unwrap();
    assert_eq!(whole(refused).await, "hello");
    let mut response = client.send(&https(), upgrading("/upgrade")).await.unwrap();
    assert_eq!(response.status(), 101);
    crate::support::upstream::soon(hyper::upgrade::on(&mut response))
        .await
        .unwrap();
    assert_eq!(server.accepted(), 2);
}
