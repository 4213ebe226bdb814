//! An HTTP/1.1 upstream that answers before it has the whole request may read the rest as another request. No other
//! caller's request may follow on this connection.

use http::{Method, Request};
use http_body::Frame;
use http_body_util::BodyExt;

use crate::client::{Client, Setting, get, http, request};
use crate::support::upstream::{AnyBody, channel, soon, text};
use crate::support::wire::{Port, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The response is complete in one read with the head, or only after it; with a body, or without one.
const ANSWERS: [&str; 7] = [
    OK,
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\n\r\n",
    "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
];

fn announced(method: Method, body: AnyBody, length: Option<&'static str>) -> Request<AnyBody> {
    let mut sent = request(method, "/early", body);
    if let Some(length) = length {
        let length = http::HeaderValue::from_static(length);
        sent.headers_mut().insert("content-length", length);
    }
    sent
}

/// The next request uses another connection, and `old` closes with no more than the rest of its own request.
async fn next_is_fresh(client: &Client, port: &Port, mut old: Wire, case: &str) {
    let target = http();
    let next = client.get(&target, "/next");
    let serve = async {
        let mut wire = port.accept().await;
        assert!(wire.head().await.starts_with("GET /next "), "{case}");
        wire.send(OK).await;
        wire
    };
    let ends = async {
        let mut rest = Vec::new();
        loop {
            let read = old.some(1024 * 1024).await;
            if read.is_empty() {
                return;
            }
            rest.extend_from_slice(&read);
            let text = String::from_utf8_lossy(&rest);
            assert!(!text.contains("/next"), "{case}: on the old connection");
            rest.drain(..rest.len().saturating_sub(8));
        }
    };
    let (next, _wire, ()) = tokio::join!(next, serve, ends);
    assert_eq!(next.unwrap().0, 200, "{case}");
}

#[tokio::test]
async fn a_connection_with_an_early_response_is_not_reused() {
    for answer in ANSWERS {
        for length in [None, Some("4")] {
            for read_first in [true, false] {
                let case = format!("{answer:?} {length:?} {read_first}");
                let port = Port::open().await;
                let client = Client::plain(port.address());
                let (sender, body) = channel();
                let target = http();
                let sending = client.send(&target, announced(Method::POST, body, length));
                let serve = async {
                    let mut wire = port.accept().await;
                    wire.head().await;
                    wire.send(answer).await;
                    wire
                };
                let (response, mut wire) = tokio::join!(sending, serve);
                let body = response.unwrap().into_body();
                let feed = async {
                    let _ = sender.send(Frame::data("bo".into())).await;
                    let _ = sender.send(Frame::data("dy".into())).await;
                    drop(sender);
                };
                if read_first {
                    soon(body.collect()).await.unwrap();
                    soon(feed).await;
                } else {
                    soon(feed).await;
                    // The whole request was sent before the end of the response is read.
                    match length {
                        Some(_) => assert_eq!(wire.exactly(4).await, "body"),
                        None => assert_eq!(wire.chunked().await.0, "body"),
                    }
                    soon(body.collect()).await.unwrap();
                }
                next_is_fresh(&client, &port, wire, &case).await;
            }
        }
    }
}

/// The end of the body waits in the peer's full socket: hyper has taken it, but it is not sent.
#[tokio::test]
async fn a_response_before_the_last_byte_was_written_prevents_reuse() {
    let port = Port::open().await;
    let client = Client::plain(port.address());
    let big: &'static str = Box::leak("x".repeat(32 * 1024 * 1024).into_boxed_str());
    let target = http();
    let sending = client.send(&target, announced(Method::POST, text(big), None));
    let serve = async {
        let mut wire = port.accept().await;
        wire.head().await;
        wire.send(OK).await;
        wire
    };
    let (response, wire) = tokio::join!(sending, serve);
    soon(response.unwrap().into_body().collect()).await.unwrap();
    // Once the peer reads again, all of it is sent.
    next_is_fresh(&client, &port, wire, "big").await;
}

/// The whole request was sent before its response ended: an echo, an interim response first, a plain upload.
#[tokio::test]
async fn a_connection_whose_request_ended_first_is_reused() {
    let port = Port::open().await;
    let client = Client::plain(port.address());
    let target = http();
    let mut kept = None;
    for round in 0..3 {
        let (sender, body) = channel();
        let sending = client.send(&target, announced(Method::POST, body, None));
        let serve = async {
            let mut wire = match kept.take() {
                Some(wire) => wire,
                None => port.accept().await,
            };
            wire.head().await;
            if round == 1 {
                wire.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
                .await;
            wire
        };
        let (response, mut wire) = tokio::join!(sending, serve);
        let body = response.unwrap().into_body();
        sender.send(Frame::data("body".into())).await.unwrap();
        drop(sender);
        assert_eq!(wire.chunked().await.0, "body");
        wire.send("echo").await;
        assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "echo");
        kept = Some(wire);
    }
    // The request used the same connection, because the port accepted no other one.
    let mut wire = kept.unwrap();
    let serve = async {
        assert!(wire.head().await.starts_with("GET /last "));
        wire.send(OK).await;
    };
    let (last, ()) = tokio::join!(client.get(&target, "/last"), serve);
    assert_eq!(last.unwrap().0, 200);
}

/// A head that is too large is answered before all of it was written.
#[tokio::test]
async fn a_response_during_the_request_head_prevents_reuse() {
    let port = Port::open().await;
    let client = Setting::new(port.address(), None).client();
    let mut sent = get("/big");
    let value = http::HeaderValue::from_str(&"h".repeat(12 * 1024 * 1024)).unwrap();
    sent.headers_mut().insert("x-big", value);
    let target = http();
    let serve = async {
        let mut wire = port.accept().await;
        wire.until(b"x-big: h").await;
        wire.send("HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n")
            .await;
        wire
    };
    let (response, wire) = tokio::join!(client.send(&target, sent), serve);
    assert_eq!(response.unwrap().status(), 431);
    // Once the peer reads again, all of it is sent.
    next_is_fresh(&client, &port, wire, "head").await;
}
