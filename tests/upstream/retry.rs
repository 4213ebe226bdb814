//! Which requests are resent, and which never are.

use http::Method;
use http_body::{Body as _, Frame};
use sidentity::error::ErrorKind;

use crate::client::{Client, get, h2c, http, request};
use crate::support::hostile::{Hostile, Loss};
use crate::support::upstream::{AnyBody, channel, text};

/// Returns how many times `method` with `body` reaches a server that misbehaves on the second request of a connection.
/// A first request opens the connection.
async fn tries(server: &Hostile, method: Method, body: AnyBody) -> (Result<(), ErrorKind>, usize) {
    let client = Client::plain(server.address);
    client.get(&http(), "/").await.unwrap();
    let sent = client.send(&http(), request(method, "/again", body)).await;
    let tries = server
        .heads()
        .iter()
        .filter(|head| head.contains("/again"))
        .count();
    (sent.map(drop).map_err(|error| error.kind()), tries)
}

#[tokio::test]
async fn an_idempotent_request_is_resent_if_its_reused_connection_was_closed() {
    for method in [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ] {
        let server = Hostile::closes_on_reuse().await;
        let tried = tries(&server, method.clone(), AnyBody::default()).await;
        assert_eq!(tried, (Ok(()), 2), "{method}");
        assert_eq!(
            server.accepted(),
            2,
            "the second time on a fresh connection"
        );
    }
    let server = Hostile::resets_on_reuse().await;
    let tried = tries(&server, Method::GET, AnyBody::default()).await;
    assert_eq!(tried, (Ok(()), 2));
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    for body in [AnyBody::default(), text("body")] {
        for server in [
            Hostile::closes_on_reuse().await,
            Hostile::resets_on_reuse().await,
        ] {
            let method = Method::POST;
            let body = if http_body::Body::is_end_stream(&body) {
                AnyBody::default()
            } else {
                text("body")
            };
            let tried = tries(&server, method, body).await;
            assert_eq!(tried, (Err(ErrorKind::ConnectionTerminated), 1));
        }
    }
}

#[tokio::test]
async fn a_put_with_a_body_is_never_sent_twice() {
    let server = Hostile::closes_on_reuse().await;
    let tried = tries(&server, Method::PUT, text("body")).await;
    assert_eq!(tried, (Err(ErrorKind::ConnectionTerminated), 1));
}

#[tokio::test]
async fn no_request_is_resent_once_a_response_has_begun() {
    let server = Hostile::stutters_on_reuse().await;
    let tried = tries(&server, Method::GET, AnyBody::default()).await;
    assert_eq!(tried, (Err(ErrorKind::ConnectionTerminated), 1));
}

#[tokio::test]
async fn no_request_that_failed_on_a_fresh_connection_is_resent() {
    let server = Hostile::closes_after_head().await;
    let client = Client::plain(server.address);
    client
        .fails(&http(), get("/"), ErrorKind::ConnectionTerminated, &[])
        .await;
    assert_eq!(server.heads().len(), 1);
}

/// The upstream answers one request and closes. The next request, with a body, is sent before the close is noticed. It
/// must never fail, because the closed connection has taken no part of it.
#[tokio::test]
async fn a_request_with_a_body_avoids_a_closed_idle_connection() {
    let server = Hostile::closes_idle().await;
    let client = Client::plain(server.address);
    for round in 1..=50 {
        let sent = request(Method::GET, "/", AnyBody::default());
        client.send(&http(), sent).await.unwrap();
        server.closed(round).await;
    }
    assert_eq!(server.accepted(), 50);
}

#[tokio::test]
async fn a_refused_stream_is_resent_for_any_method() {
    for method in [Method::GET, Method::POST] {
        let server = Hostile::refuses_streams(2).await;
        let client = Client::plain(server.address);
        let sent = request(method, "/", AnyBody::default());
        let response = client.send(&h2c(), sent).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(server.heads().len(), 3);
        assert_eq!(server.accepted(), 2, "the last time on a fresh connection");
    }
}

#[tokio::test]
async fn a_stream_that_is_always_refused_is_given_up() {
    let server = Hostile::refuses_streams(usize::MAX).await;
    let client = Client::plain(server.address);
    client
        .fails(
            &h2c(),
            get("/"),
            ErrorKind::ConnectionTerminated,
            &["reset"],
        )
        .await;
    assert_eq!(server.heads().len(), 3);
}

/// Every unary call of gRPC has a body.
#[tokio::test]
async fn a_refused_request_is_resent_with_its_body_and_trailers() {
    for after_data in [false, true] {
        let server = Hostile::refuses_bodies(2, after_data).await;
        let client = Client::plain(server.address);
        let (sender, body) = channel();
        let target = h2c();
        let sending = client.send(&target, request(Method::POST, "/", body));
        let feed = async {
            let word = |word: &'static str| Frame::data(word.into());
            sender.send(word("one ")).await.unwrap();
            // The rest of the body arrives only after the stream was refused twice.
            server.heard(2).await;
            sender.send(word("two")).await.unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("7"));
            sender.send(Frame::trailers(trailers)).await.unwrap();
            drop(sender);
        };
        let (response, ()) = tokio::join!(sending, feed);
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.heads()[2..], ["one two Some(\"7\")"]);
    }
}

#[tokio::test]
async fn a_refused_request_with_a_sent_body_is_resent() {
    for length in [1, 64 * 1024] {
        let server = Hostile::refuses_bodies(2, true).await;
        let client = Client::plain(server.address);
        let body: &'static str = Box::leak("x".repeat(length).into_boxed_str());
        let sent = request(Method::POST, "/", text(body));
        assert_eq!(client.send(&h2c(), sent).await.unwrap().status(), 200);
        assert!(server.heads()[2] == format!("{body} None"), "{length}");
    }
}

#[tokio::test]
async fn a_refused_request_with_a_large_body_is_left_to_the_caller() {
    let server = Hostile::refuses_bodies(1, true).await;
    let client = Client::plain(server.address);
    let body: &'static str = Box::leak("x".repeat(64 * 1024 + 1).into_boxed_str());
    let sent = request(Method::POST, "/", text(body));
    let error = client.send(&h2c(), sent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    assert!(error.is_unprocessed());
    assert_eq!(server.heads(), ["refused"]);
}

#[tokio::test]
async fn a_body_above_a_goaway_is_resent_on_another_connection() {
    let server = Hostile::disowns_the_first_connection().await;
    let client = Client::plain(server.address);
    let sent = request(Method::POST, "/", text("12345"));
    assert_eq!(client.send(&h2c(), sent).await.unwrap().status(), 200);
    assert_eq!(server.accepted(), 2);
}

/// Starts a server that closes its connection after this number of requests, with requests in flight.
#[tokio::test]
async fn idempotent_requests_on_a_lost_connection_are_resent_once() {
    for how in [Loss::Close, Loss::Reset, Loss::GoAway] {
        let server = Hostile::loses(1, 6, how).await;
        let client = std::sync::Arc::new(Client::plain(server.address));
        let mut calls = tokio::task::JoinSet::new();
        for method in [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::TRACE,
            Method::PUT,
            Method::DELETE,
        ] {
            let client = client.clone();
            calls.spawn(async move {
                let sent = request(method, "/", AnyBody::default());
                client
                    .send(&h2c(), sent)
                    .await
                    .map(|answer| answer.status())
            });
        }
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().unwrap(), 200, "{how:?}");
        }
        assert_eq!(server.accepted(), 2, "{how:?}: one new connection for all");
    }
}

/// One of two streams gets an interim response, with a status that is not indexed, indexed in the dynamic table, or
/// Huffman-coded.
#[tokio::test]
async fn a_request_with_an_interim_response_is_not_resent() {
    for how in [Loss::Close, Loss::Reset, Loss::GoAway] {
        for block in [
            &[0x08, 3, b'1', b'0', b'3'][..],
            &[0x48, 0x82, 0x08, 0x19],
            &[0x08, 3, b'1', b'0', b'0'],
        ] {
            let server = Hostile::loses_after(1, 2, how, block).await;
            let client = Client::plain(server.address);
            let target = h2c();
            let (one, other) = tokio::join!(
                client.send(&target, get("/")),
                client.send(&target, get("/")),
            );
            let failed: Vec<_> = [one.err(), other.err()].into_iter().flatten().collect();
            assert_eq!(failed.len(), 1, "{how:?} {block:?}");
            assert_eq!(failed[0].kind(), ErrorKind::ConnectionTerminated, "{how:?}");
            assert!(
                failed[0].detail().contains("interim"),
                "{}",
                failed[0].detail()
            );
            assert_eq!(server.heads().len(), 3, "{how:?} {block:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_lost_twice_fails() {
    let server = Hostile::loses(2, 1, Loss::GoAway).await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::ConnectionTerminated, &[])
        .await;
    assert_eq!(server.heads(), ["lost", "lost"]);
}

#[tokio::test]
async fn a_possibly_processed_http2_request_is_not_resent() {
    for (method, body) in [
        (Method::POST, AnyBody::default()),
        (Method::PATCH, AnyBody::default()),
        (Method::POST, text("body")),
        (Method::PUT, text("body")),
    ] {
        for how in [Loss::Close, Loss::Reset, Loss::GoAway] {
            let server = Hostile::loses(1, 1, how).await;
            let client = Client::plain(server.address);
            let body = match body.size_hint().exact() {
                Some(0) => AnyBody::default(),
                _ => text("body"),
            };
            let sent = request(method.clone(), "/", body);
            client
                .fails(&h2c(), sent, ErrorKind::ConnectionTerminated, &[])
                .await;
            assert_eq!(server.heads(), ["lost"], "{method} {how:?}");
        }
    }
}

/// This is a race: when one task read the connection and another opened its streams, some requests were sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_post_below_a_goaway_is_sent_once() {
    const CALLS: usize = 1800;
    let server = Hostile::loses(usize::MAX, 1, Loss::GoAway).await;
    let address = server.address;
    let calls = (0..6).map(|_| {
        tokio::spawn(async move {
            let client = Client::plain(address);
            for _ in 0..CALLS / 6 {
                let sent = request(Method::POST, "/", AnyBody::default());
                client
                    .fails(&h2c(), sent, ErrorKind::ConnectionTerminated, &[])
                    .await;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(server.heads().len(), CALLS);
}

#[tokio::test]
async fn a_request_above_a_goaway_is_resent_on_another_connection() {
    let server = Hostile::disowns_the_first_connection().await;
    let client = Client::plain(server.address);
    let sent = request(Method::POST, "/", AnyBody::default());
    let response = client.send(&h2c(), sent).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.heads().len(), 2);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_stream_reset_for_any_other_reason_is_not_resent() {
    let server = Hostile::resets_streams(h2::Reason::INTERNAL_ERROR).await;
    let client = Client::plain(server.address);
    client
        .fails(&h2c(), get("/"), ErrorKind::ConnectionTerminated, &[])
        .await;
    assert_eq!(server.heads().len(), 1);
}

/// A server in another thread answers one request on its first connection and closes it, while this thread is blocked.
/// When it continues, it sends a request that may not be sent twice.
#[tokio::test]
async fn a_close_during_a_freeze_is_detected_before_the_next_request() {
    use std::io::{Read, Write};
    for target in [http(), h2c()] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, freeze) = std::sync::mpsc::channel::<()>();
        let (closed, thaw) = std::sync::mpsc::channel::<()>();
        let http2 = target == h2c();
        std::thread::spawn(move || {
            for connection in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut sink = [0; 4096];
                if http2 {
                    // SETTINGS; then, for stream 1, HEADERS with `:status: 200` and the end of the stream.
                    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
                    let mut heard = Vec::new();
                    let head = |heard: &[u8]| {
                        heard
                            .windows(9)
                            .any(|frame| frame[3..] == [1, 5, 0, 0, 0, 1])
                    };
                    while !head(&heard) {
                        let read = stream.read(&mut sink).unwrap();
                        heard.extend_from_slice(&sink[..read]);
                    }
                    stream
                        .write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88])
                        .unwrap();
                } else {
                    assert!(stream.read(&mut sink).unwrap() > 0);
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .unwrap();
                }
                if connection == 0 {
                    freeze.recv().unwrap();
                    drop(stream);
                    closed.send(()).unwrap();
                } else {
                    while matches!(stream.read(&mut sink), Ok(read) if read > 0) {}
                }
            }
        });
        let client = Client::plain(address);
        assert_eq!(client.get(&target, "/").await.unwrap().0, 200);
        // No task of this runtime runs while the thread is blocked.
        frozen.send(()).unwrap();
        thaw.recv().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let sent = request(Method::POST, "/", AnyBody::default());
        let response = client.send(&target, sent).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}
