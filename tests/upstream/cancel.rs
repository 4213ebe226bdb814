//! Cancelled requests: the upstream learns of it at once, and no resource is left.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body::Frame;
use http_body_util::BodyExt;
use sidentity::upstream::Target;

use crate::client::{Client, Setting, get, h2c, http, https, request, secure};
use crate::support::hostile::Hostile;
use crate::support::upstream::{Honest, Manner, channel, soon};

/// Sends a request that is held, drops it, and returns once the upstream has seen both.
async fn drop_a_request(server: &Honest, client: &Arc<Client>, target: &Target) {
    let sending = {
        let (client, target) = (Arc::clone(client), target.clone());
        tokio::spawn(async move { client.send(&target, get("/hold")).await.map(drop) })
    };
    server.held(1).await;
    sending.abort();
    server.cancelled(1).await;
}

#[tokio::test]
async fn a_dropped_request_closes_an_http1_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(Client::plain(server.address));
    drop_a_request(&server, &client, &http()).await;
    server.open(0).await;
    client.connections(0).await;
}

#[tokio::test]
async fn a_dropped_request_resets_an_http2_stream_and_keeps_the_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(Client::plain(server.address));
    drop_a_request(&server, &client, &h2c()).await;
    client.get(&h2c(), "/").await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_body_closes_an_http1_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let response = client.send(&http(), get("/endless")).await.unwrap();
    drop(response);
    server.cancelled(1).await;
    server.open(0).await;
    client.connections(0).await;
}

/// This also applies to a response that has arrived completely: the caller has not read it.
#[tokio::test]
async fn a_small_body_dropped_unread_closes_an_http1_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    drop(client.send(&http(), get("/")).await.unwrap());
    server.open(0).await;
    client.connections(0).await;
}

#[tokio::test]
async fn a_dropped_body_resets_an_http2_stream_and_keeps_the_connection() {
    let server = Honest::start(Manner::default()).await;
    let client = Client::plain(server.address);
    let mut body = client
        .send(&h2c(), get("/endless"))
        .await
        .unwrap()
        .into_body();
    soon(body.frame()).await.unwrap().unwrap();
    drop(body);
    server.cancelled(1).await;
    client.get(&h2c(), "/").await.unwrap();
    assert_eq!(server.accepted(), 1);
}

/// The request's body is still open when the response is dropped.
#[tokio::test]
async fn a_dropped_response_stops_an_upload_too() {
    for target in [http(), h2c()] {
        let server = Honest::start(Manner::default()).await;
        let client = Client::plain(server.address);
        let (sender, body) = channel();
        let sent = request(Method::POST, "/echo", body);
        let response = client.send(&target, sent).await.unwrap();
        sender.send(Frame::data("ping".into())).await.unwrap();
        drop(response);
        soon(sender.closed()).await;
    }
}

#[tokio::test]
async fn dropped_requests_release_their_permits() {
    for target in [http(), h2c()] {
        let server = Hostile::stalls().await;
        let honest = Honest::start(Manner::default()).await;
        for address in [server.address, honest.address] {
            let client = Setting::new(address, None)
                .with(|setting| {
                    setting.limits.connections = 1;
                    setting.limits.per_target = 1;
                })
                .client();
            for _ in 0..20 {
                let path = "/hold";
                let sent = client.upstream.send(&target, get(path));
                let waited = tokio::time::timeout(Duration::from_millis(5), sent).await;
                assert!(waited.is_err());
            }
            client.upstream.close_idle();
            client.connections(0).await;
            if address == honest.address {
                client.get(&target, "/").await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_connection_attempt_outlives_its_request() {
    let (server, client) = secure(&["h2"]).await;
    let target = https();
    let mut first = Box::pin(client.upstream.send(&target, get("/")));
    let mut second = Box::pin(client.upstream.send(&target, get("/")));
    // Both requests wait, and the first has started the dial.
    std::future::poll_fn(|cx| {
        assert!(first.as_mut().poll(cx).is_pending());
        assert!(second.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(first);
    soon(second).await.unwrap();
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.seen().len(), 1);
}
