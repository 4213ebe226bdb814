//! An idle HTTP/1.1 connection is parked: it frees its buffers until its next request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use sidentity::config::HttpVersion;
use sidentity::destination::Scheme;
use sidentity::error::ErrorKind;
use sidentity::memory::{PARKED_CONNECTION as PARKED, UPSTREAM_CONNECTION as OPEN};
use sidentity::upstream::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::client::{Client, NAME, Setting, get, request, target, upgrading, whole};
use crate::support::hostile::Hostile;
use crate::support::tls::TestCa;
use crate::support::upstream::{Honest, Manner, soon, text};
use crate::support::wire::{Port, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream that the test controls step by step, and its client.
struct Stage {
    port: Port,
    tls: Option<TlsAcceptor>,
    client: Client,
    target: Target,
}

impl Stage {
    /// Returns one upstream in cleartext, and one with TLS.
    async fn both() -> [Self; 2] {
        let (plain, secure) = (Port::open().await, Port::open().await);
        let ca = TestCa::new();
        let config = ca.leaf(&[NAME]).serving(&["http/1.1"]);
        [
            Self {
                client: parking(Setting::new(plain.address(), None)),
                port: plain,
                tls: None,
                target: over(Scheme::Http),
            },
            Self {
                client: parking(Setting::new(secure.address(), Some(&ca))),
                port: secure,
                tls: Some(TlsAcceptor::from(config)),
                target: over(Scheme::Https),
            },
        ]
    }

    async fn accept(&self) -> Wire {
        let stream = self.port.accept_tcp().await;
        match &self.tls {
            None => Wire::over(stream),
            Some(tls) => Wire::over(soon(tls.accept(stream)).await.unwrap()),
        }
    }

    /// Calls the upstream over a new connection, and returns its end of it.
    async fn dialled(&self) -> Wire {
        let answer = async {
            let mut wire = self.accept().await;
            answer(&mut wire, OK).await;
            wire
        };
        let (response, wire) = tokio::join!(self.client.get(&self.target, "/"), answer);
        assert_eq!(response.unwrap().1, "ok");
        wire
    }

    /// Calls the upstream over this connection.
    async fn reused(&self, wire: &mut Wire, response: &str) {
        let (got, ()) = tokio::join!(self.client.get(&self.target, "/"), answer(wire, response));
        assert_eq!(got.unwrap().1, "ok");
    }
}

/// Returns a client that parks connections almost at once.
fn parking(setting: Setting) -> Client {
    setting
        .with(|setting| setting.limits.park_after = Duration::from_millis(10))
        .client()
}

fn over(scheme: Scheme) -> Target {
    target(scheme, NAME, HttpVersion::Http1)
}

async fn answer(wire: &mut Wire, response: &str) {
    wire.head().await;
    wire.send(response).await;
}

/// Waits until this number of bytes is counted for connections.
async fn counted(client: &Client, bytes: usize) {
    soon(async {
        while client.memory.used() != bytes {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_parked_connection_carries_the_next_requests() {
    let ca = TestCa::new();
    let tls = ca.leaf(&[NAME]).serving(&["http/1.1"]);
    for (tls, scheme) in [(None, Scheme::Http), (Some(tls), Scheme::Https)] {
        let manner = Manner {
            tls,
            ..Manner::default()
        };
        let server = Honest::start(manner).await;
        let client = parking(Setting::new(server.address, Some(&ca)));
        for _ in 0..3 {
            client.get(&over(scheme), "/").await.unwrap();
            counted(&client, PARKED).await;
            let sent = request(Method::POST, "/echo", text("ping"));
            let response = client.send(&over(scheme), sent).await.unwrap();
            assert_eq!(whole(response).await, "ping");
            counted(&client, PARKED).await;
            let (_, body) = client.get(&over(scheme), "/bytes/300000").await.unwrap();
            assert_eq!(body.len(), 300_000);
        }
        assert_eq!(server.accepted(), 1);
        let ok = client.metric("sidentity_upstream_connects_total{outcome=\"ok\"}");
        assert_eq!(ok, 1.0);
        client.connections(1).await;
    }
}

#[tokio::test]
async fn a_parked_connection_that_the_upstream_closes_is_not_used() {
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        counted(&stage.client, PARKED).await;
        wire.finish().await;
        stage.client.connections(0).await;
        assert_eq!(wire.rest().await, "");
        stage.dialled().await;
    }
}

#[tokio::test]
async fn bytes_on_a_parked_connection_close_it() {
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        counted(&stage.client, PARKED).await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")
            .await;
        stage.client.connections(0).await;
        stage.dialled().await;
    }
}

#[tokio::test]
async fn a_close_just_before_the_next_request_is_noticed() {
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        counted(&stage.client, PARKED).await;
        // Not idempotent: it would fail on the connection that is closed here, before the client's tasks run again.
        let sent = request(Method::POST, "/", text("once"));
        let sent = stage.client.upstream.send(&stage.target, sent);
        wire.finish().await;
        let answered = async {
            let mut wire = stage.accept().await;
            answer(&mut wire, OK).await;
        };
        let (response, ()) = tokio::join!(soon(sent), answered);
        assert_eq!(whole(response.unwrap()).await, "ok");
        assert_eq!(wire.rest().await, "");
    }
}

#[tokio::test]
async fn a_request_without_effect_is_sent_again_if_the_connection_closes_on_reuse() {
    let server = Hostile::closes_on_reuse().await;
    let client = parking(Setting::new(server.address, None));
    client.get(&over(Scheme::Http), "/").await.unwrap();
    counted(&client, PARKED).await;
    client.get(&over(Scheme::Http), "/").await.unwrap();
    assert_eq!(server.accepted(), 2);
    counted(&client, PARKED).await;
    let sent = request(Method::POST, "/", text("once"));
    client
        .fails(
            &over(Scheme::Http),
            sent,
            ErrorKind::ConnectionTerminated,
            &[],
        )
        .await;
    assert_eq!(server.accepted(), 2);
}

/// hyper completes an upgrade only on a connection that cannot be parked.
#[tokio::test]
async fn an_upgrade_succeeds_beside_a_parked_connection_and_after_a_declined_one() {
    let server = Honest::start(Manner::default()).await;
    let client = parking(Setting::new(server.address, None));
    for _ in 0..2 {
        let response = client.send(&over(Scheme::Http), upgrading("/")).await;
        whole(response.unwrap()).await;
    }
    // Idle later than the other one, so that a sweep has seen both.
    client.get(&over(Scheme::Http), "/").await.unwrap();
    counted(&client, OPEN + PARKED).await;
    let sent = upgrading("/upgrade");
    let mut response = client.send(&over(Scheme::Http), sent).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(&mut response);
    drop(response);
    let mut stream = TokioIo::new(soon(upgraded).await.unwrap());
    stream.write_all(b"one").await.unwrap();
    let mut echo = [0; 3];
    soon(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"one");
    assert_eq!(server.accepted(), 2);
    drop(stream);
    client.connections(1).await;
}

#[tokio::test]
async fn a_parked_connection_is_closed_in_time() {
    let server = Honest::start(Manner::default()).await;
    let client = parking(
        Setting::new(server.address, None)
            .with(|setting| setting.config.idle_timeout = Duration::from_secs(1)),
    );
    client.get(&over(Scheme::Http), "/").await.unwrap();
    counted(&client, PARKED).await;
    client.connections(0).await;
    server.open(0).await;
    assert_eq!(client.memory.used(), 0);
}

/// TLS needs a close_notify: without it, the upstream could not tell a close from an attack.
#[tokio::test]
async fn a_parked_connection_is_closed_properly() {
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        counted(&stage.client, PARKED).await;
        stage.client.upstream.close_idle();
        stage.client.connections(0).await;
        let mut end = [0];
        let read = soon(wire.stream().read(&mut end)).await;
        assert_eq!(read.unwrap(), 0);
        stage.dialled().await;
    }
}

#[tokio::test]
async fn parked_connections_count_as_idle_ones() {
    let server = Honest::start(Manner::default()).await;
    let client =
        parking(Setting::new(server.address, None).with(|setting| setting.config.max_idle = 2));
    let named = |name: &str| target(Scheme::Http, &format!("{name}.example"), HttpVersion::Http1);
    for name in ["a", "b"] {
        client.get(&named(name), "/").await.unwrap();
    }
    counted(&client, 2 * PARKED).await;
    client.get(&named("c"), "/").await.unwrap();
    client.connections(2).await;
    counted(&client, 2 * PARKED).await;
    // The first was used least recently.
    for name in ["b", "c"] {
        client.get(&named(name), "/").await.unwrap();
    }
    assert_eq!(server.accepted(), 3);
    client.get(&named("a"), "/").await.unwrap();
    assert_eq!(server.accepted(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_each_get_one_parked_connection() {
    const COUNT: usize = 50;
    let server = Honest::start(Manner::default()).await;
    let client = Arc::new(parking(Setting::new(server.address, None)));
    let mut held = JoinSet::new();
    for _ in 0..COUNT {
        let client = Arc::clone(&client);
        held.spawn(async move { client.get(&over(Scheme::Http), "/hold").await.unwrap() });
    }
    server.held(COUNT).await;
    server.release();
    held.join_all().await;
    for _ in 0..5 {
        counted(&client, COUNT * PARKED).await;
        let mut calls = JoinSet::new();
        for _ in 0..COUNT {
            let client = Arc::clone(&client);
            calls.spawn(async move {
                let (sender, body) = crate::support::upstream::channel();
                let sent = request(Method::POST, "/echo", body);
                let response = client.send(&over(Scheme::Http), sent).await.unwrap();
                // The response's head has arrived, and the request has not ended: no other one has this connection.
                (response, sender)
            });
        }
        let open = calls.join_all().await;
        for (number, (_, sender)) in open.iter().enumerate() {
            let data = http_body::Frame::data(number.to_string().into());
            sender.send(data).await.unwrap();
        }
        for (number, (response, sender)) in open.into_iter().enumerate() {
            drop(sender);
            assert_eq!(whole(response).await, number.to_string());
        }
    }
    assert_eq!(server.accepted(), COUNT);
}

#[tokio::test]
async fn a_cancelled_request_closes_the_parked_connection_that_it_woke() {
    for stage in Stage::both().await {
        // It is cancelled in each step from the wake to the response.
        for polls in 1..8 {
            let mut wire = stage.dialled().await;
            counted(&stage.client, PARKED).await;
            let mut sent = Box::pin(stage.client.upstream.send(&stage.target, get("/")));
            for _ in 0..polls {
                let poll = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx)));
                assert!(poll.await.is_pending());
                tokio::task::yield_now().await;
            }
            drop(sent);
            stage.client.connections(0).await;
            wire.rest().await;
            assert_eq!(stage.client.memory.used(), 0);
        }
    }
}

#[tokio::test]
async fn a_parked_connection_of_http10_is_kept_alive() {
    const OLD: &str = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        for _ in 0..3 {
            counted(&stage.client, PARKED).await;
            stage.reused(&mut wire, OLD).await;
        }
    }
}

#[tokio::test]
async fn interim_responses_are_counted_from_zero_after_parking() {
    let many = format!("{}{OK}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(32));
    for stage in Stage::both().await {
        let mut wire = stage.dialled().await;
        for _ in 0..2 {
            counted(&stage.client, PARKED).await;
            stage.reused(&mut wire, &many).await;
        }
        counted(&stage.client, PARKED).await;
        let more = format!("HTTP/1.1 103 Early Hints\r\n\r\n{many}");
        let (failed, ()) = tokio::join!(
            stage.client.get(&stage.target, "/"),
            answer(&mut wire, &more)
        );
        failed.unwrap_err();
    }
}
