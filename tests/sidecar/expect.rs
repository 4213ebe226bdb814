//! `Expect: 100-continue`, answers before the body, and how long an answer may take.

use super::http1::{between, request};
use super::support::app::raw;
use super::support::metadata::{Answer, Gate, Kind};
use super::support::wire::{Wire, field};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 4\r\n";
const TOKEN: [&str; 2] = ["--rule", "127.0.0.1=access,plaintext=allow"];

#[tokio::test]
async fn the_body_is_asked_for_when_the_upstream_is_there() {
    let (port, metadata, _sidecar, mut app) = between(&TOKEN).await;
    let gate = Gate::new();
    metadata.script(Kind::Access, [Answer::access("T1", 3600).behind(&gate)]);
    app.send(request(&port, "POST /", EXPECT)).await;
    metadata.arrived(Kind::Access, 1).await;
    app.silent().await;
    gate.open();
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "expect"), None, "{head}");
    assert_eq!(field(&head, "authorization"), Some("Bearer T1"));
    assert_eq!(app.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    app.send("body").await;
    assert_eq!(upstream.exactly(4).await, "body");
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
    // Once is enough: an app that does not ask is not told.
    app.send(request(&port, "POST /", "Content-Length: 4\r\n") + "more")
        .await;
    upstream.head().await;
    assert_eq!(upstream.exactly(4).await, "more");
    upstream.send(OK).await;
    assert!(app.message().await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_a_token_or_an_upstream_the_body_is_not_asked_for() {
    let (port, metadata, sidecar, mut app) = between(&TOKEN).await;
    metadata.script(Kind::Access, [Answer::status(503, "not now")]);
    app.send(request(&port, "POST /", EXPECT)).await;
    let (head, problem) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(problem.contains("token:"), "{problem}");
    port.untouched().await;
    drop(app);

    let metadata = super::support::metadata::Metadata::start().await;
    let other = super::support::sidecar::Sidecar::start(&metadata, &[]).await;
    let gone = request(&port, "POST /", EXPECT);
    drop(port);
    let mut app = Wire::open(other.proxy()).await;
    app.send(gone).await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("connection_refused"), "{head}");
    drop(sidecar);
}

#[tokio::test]
async fn an_upstreams_refusal_comes_before_the_body() {
    for (status, reason) in [(413, "Content Too Large"), (401, "Unauthorized")] {
        let (port, metadata, _sidecar, mut app) = between(&TOKEN).await;
        metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
        app.send(request(&port, "POST /", EXPECT)).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream
            .send(format!(
                "HTTP/1.1 {status} {reason}\r\nContent-Length: 2\r\n\r\nno"
            ))
            .await;
        let mut head = app.head().await;
        // Our upstream was ready for it, the service was not.
        if head.starts_with("HTTP/1.1 100 ") {
            head = app.head().await;
        }
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(app.exactly(2).await, "no");
        // Nothing was sent again: there was no body to send.
        port.untouched().await;
    }
}

#[tokio::test]
async fn a_slow_upload_is_not_a_late_answer() {
    let (port, _metadata, sidecar, mut app) = between(&["--response-timeout", "1s"]).await;
    for framing in ["Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"] {
        app.send(request(&port, "POST /", framing)).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        // Longer than the answer may take; it is the test's subject and no way to wait.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        app.silent().await;
        app.send(if framing.starts_with('C') {
            "body"
        } else {
            "4\r\nbody\r\n0\r\n\r\n"
        })
        .await;
        let (head, _) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert!(head.contains("http_response_timeout"), "{head}");
        upstream.rest().await;
        app = Wire::open(sidecar.proxy()).await;
    }
}

#[tokio::test]
async fn without_a_body_an_answer_is_late_at_once_and_a_slow_answer_is_not() {
    let (port, _metadata, _sidecar, mut app) = between(&["--response-timeout", "1s"]).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert!(head.contains("http_response_timeout"), "{head}");
    // Nobody waits for it any more, and it is told so.
    assert_eq!(upstream.rest().await, "");
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await;
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    upstream.send("k").await;
    assert_eq!(app.exactly(2).await, "ok");
}

#[tokio::test]
async fn an_upstream_that_only_ever_says_wait_is_late_too() {
    let (port, _metadata, sidecar, _) = between(&["--response-timeout", "1s"]).await;
    let asked = request(&port, "GET /", "Connection: close\r\n");
    let answer = tokio::spawn(async move { raw(sidecar.proxy(), asked.as_bytes()).await });
    let mut upstream = port.accept().await;
    upstream.head().await;
    while upstream
        .try_send("HTTP/1.1 102 Processing\r\n\r\n".repeat(64))
        .await
        .is_ok()
    {}
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 504 "));
}
