//! HTTP/2: as many connections as the streams need.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderValue, Method, Version};
use tokio::task::JoinSet;

use crate::client::{Client, NAME, Setting, get, h2c, https, request, secure, whole};
use crate::support::hostile::Hostile;
use crate::support::tls::TestCa;
use crate::support::upstream::{Honest, Manner, soon, text};

/// Sends this number of concurrent requests, each of which must get 200.
fn crowd(client: &Arc<Client>, path: &'static str, count: usize) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let client = Arc::clone(client);
        crowd.spawn(async move {
            let (status, _) = client.get(&https(), path).await.unwrap();
            assert_eq!(status, 200);
        });
    }
    crowd
}

async fn allowing(streams: u32) -> (Honest, Arc<Client>) {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(&["h2", "http/1.1"])),
        max_streams: Some(streams),
    })
    .await;
    let client = Setting::new(server.address, Some(&ca)).client();
    (server, Arc::new(client))
}

fn per_connection(server: &Honest) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for seen in server.seen() {
        *counts.entry(seen.connection).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_request_arrives_with_an_authority_and_without_a_host() {
    let (server, client) = secure(&["h2", "http/1.1"]).await;
    let mut sent = get("http://localhost:8081/a/b?c=d");
    sent.headers_mut()
        .insert("host", HeaderValue::from_static("localhost:8081"));
    let response = client.send(&https(), sent).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    let seen = server.only();
    assert_eq!(seen.uri, "https://api.example/a/b?c=d");
    assert_eq!(seen.version, Version::HTTP_2);
    assert!(!seen.headers.contains_key("host"), "{:?}", seen.headers);
    assert_eq!(seen.sni.as_deref(), Some("api.example"));
    assert_eq!(seen.alpn.as_deref(), Some("h2"));
}

#[tokio::test]
async fn three_hundred_concurrent_requests_use_three_connections_without_waiting() {
    let (server, client) = allowing(100).await;
    let mut crowd = crowd(&client, "/hold", 300);
    // All have arrived before the first is answered.
    server.held(300).await;
    server.release();
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    let counts = per_connection(&server);
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| *count == 100), "{counts:?}");
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn fifty_first_requests_share_one_connection() {
    let (server, client) = allowing(100).await;
    let mut crowd = crowd(&client, "/hold", 50);
    server.held(50).await;
    server.release();
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.accepted(), 1);
    let ok = client.metric("sidentity_upstream_connects_total{outcome=\"ok\"}");
    assert_eq!(ok, 1.0);
}

#[tokio::test]
async fn fifty_first_requests_to_an_http1_upstream_use_fifty_connections() {
    let ca = TestCa::new();
    let server = Honest::start(Manner {
        tls: Some(ca.leaf(&[NAME]).serving(&["http/1.1"])),
        ..Manner::default()
    })
    .await;
    let client = Arc::new(Setting::new(server.address, Some(&ca)).client());
    let mut crowd = crowd(&client, "/hold", 50);
    server.held(50).await;
    server.release();
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.accepted(), 50);
}

#[tokio::test]
async fn an_upstream_that_allows_one_stream_gets_one_at_a_time_on_each_connection() {
    let server = Hostile::allows_one_stream(5).await;
    let client = Arc::new(Client::plain(server.address));
    let mut crowd = JoinSet::new();
    for _ in 0..5 {
        let client = Arc::clone(&client);
        crowd.spawn(async move { client.get(&h2c(), "/").await.unwrap() });
    }
    while let Some(answered) = crowd.join_next().await {
        assert_eq!(answered.unwrap().0, 200);
    }
    assert_eq!(server.accepted(), 5);
    // The connections are reused.
    for _ in 0..10 {
        client.get(&h2c(), "/").await.unwrap();
    }
    assert_eq!(server.accepted(), 5);
}

#[tokio::test]
async fn the_sidecars_stream_limit_applies_if_the_upstream_allows_more() {
    let (server, client) = allowing(1000).await;
    let mut crowd = crowd(&client, "/hold", 101);
    server.held(101).await;
    server.release();
    while let Some(ended) = crowd.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_graceful_close_between_requests_fails_no_request() {
    let (server, client) = secure(&["h2"]).await;
    for round in 1..=4 {
        client.get(&https(), "/").await.unwrap();
        assert_eq!(server.accepted(), round);
        server.close_gracefully();
        server.open(0).await;
    }
}

#[tokio::test]
async fn a_graceful_close_while_a_request_is_in_flight_lets_it_finish() {
    let (server, client) = secure(&["h2"]).await;
    let client = Arc::new(client);
    let mut held = crowd(&client, "/hold", 1);
    server.held(1).await;
    server.close_gracefully();
    // No request fails, also not one with a body. Requests after the GOAWAY use another connection.
    soon(async {
        while server.accepted() < 2 {
            let sent = request(Method::POST, "/echo", text("ping"));
            let response = client.send(&https(), sent).await.unwrap();
            assert_eq!(whole(response).await, "ping");
        }
    })
    .await;
    server.release();
    held.join_next().await.unwrap().unwrap();
    server.open(1).await;
}

#[tokio::test]
async fn a_hundred_requests_pass_an_upstream_that_goes_away_after_each_tenth() {
    let server = Hostile::goes_away_after(10).await;
    let client = Client::plain(server.address);
    for _ in 0..100 {
        let (status, body) = client.get(&h2c(), "/").await.unwrap();
        assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
    }
    assert_eq!(server.heads().len(), 100, "each was sent once");
    assert!(server.accepted() >= 10);
    assert!(
        server.accepted() < 20,
        "who has said goodbye is not asked again: {} connections",
        server.accepted()
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let server = Honest::start(Manner::default()).await;
    let client = Setting::new(server.address, None)
        .with(|setting| setting.config.idle_timeout = std::time::Duration::from_millis(50))
        .client();
    client.get(&h2c(), "/").await.unwrap();
    server.open(0).await;
    client.connections(0).await;
    client.get(&h2c(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn idle_connections_are_not_used_after_a_freeze() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    client.get(&h2c(), "/").await.unwrap();
    client.upstream.close_idle();
    server.open(0).await;
    client.get(&h2c(), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn big_heads_and_trailers_pass() {
    use http_body_util::BodyExt;
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let big = HeaderValue::from_str(&"a".repeat(60 * 1024)).unwrap();
    let (sender, body) = crate::support::upstream::channel();
    let mut sent = request(Method::POST, "/echo", body);
    sent.headers_mut().insert("x-big", big.clone());
    let feed = async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-big", big);
        let frame = http_body::Frame::trailers(trailers);
        sender.send(frame).await.unwrap();
        drop(sender);
    };
    let target = h2c();
    let (response, ()) = tokio::join!(client.send(&target, sent), feed);
    let collected = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-big"].len(), 60 * 1024);
    assert_eq!(server.only().headers["x-big"].len(), 60 * 1024);
}
