//! `Expect: 100-continue`, responses before the body, and the response timeout.

use std::time::Instant;

use super::http1::{between, request};
use super::support::app::raw;
use super::support::metadata::{Answer, Gate, Kind};
use super::support::sidecar::Sidecar;
use super::support::streams::{Streams, whole};
use super::support::wire::{Wire, field};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 4\r\n";
const TOKEN: [&str; 2] = ["--rule", "127.0.0.1=access,plaintext=allow"];

#[tokio::test]
async fn the_app_gets_100_continue_when_the_upstream_sends_it() {
    let (port, metadata, _sidecar, mut app) = between(&TOKEN).await;
    let gate = Gate::new();
    metadata.script(Kind::Access, [Answer::access("T1", 3600).behind(&gate)]);
    app.send(request(&port, "POST /", EXPECT)).await;
    metadata.arrived(Kind::Access, 1).await;
    app.silent().await;
    gate.open();
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
    assert_eq!(field(&head, "authorization"), Some("Bearer T1"));
    // Another interim response does not ask for the body.
    upstream
        .send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        .await;
    app.silent().await;
    upstream.send(CONTINUE).await;
    assert_eq!(app.head().await, CONTINUE);
    app.send("body").await;
    assert_eq!(upstream.exactly(4).await, "body");
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
    // An app that does not expect 100 gets none, and both connections were kept.
    app.send(request(&port, "POST /", "Content-Length: 4\r\n") + "more")
        .await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "expect"), None, "{head}");
    assert_eq!(upstream.exactly(4).await, "more");
    upstream.send(OK).await;
    assert!(app.message().await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn waiting_for_100_continue_adds_no_delay() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let since = Instant::now();
    let mut upstream = None;
    // Each call would take a second if the upstream's 100 were not noticed.
    for _ in 0..6 {
        app.send(request(&port, "POST /", EXPECT)).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        wire.send(CONTINUE).await;
        assert_eq!(app.head().await, CONTINUE);
        app.send("body").await;
        assert_eq!(wire.exactly(4).await, "body");
        wire.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_body_that_did_not_wait_is_held_until_the_upstream_asks() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let fields = "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n";
    app.send(request(&port, "POST /", fields) + "4\r\nbody\r\n0\r\nX-Sum: 4\r\n\r\n")
        .await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
    upstream.silent().await;
    upstream.send(CONTINUE).await;
    let (body, trailers) = upstream.chunked().await;
    assert_eq!(
        (&*body, &*trailers.to_lowercase()),
        ("body", "x-sum: 4\r\n")
    );
    upstream.send(OK).await;
    let mut head = app.head().await;
    if head == CONTINUE {
        head = app.head().await;
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn an_upstream_without_100_continue_gets_the_body_after_a_while() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "POST /", EXPECT)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    let since = Instant::now();
    assert_eq!(app.head().await, CONTINUE);
    assert!(since.elapsed().as_millis() > 500, "{:?}", since.elapsed());
    app.send("body").await;
    assert_eq!(upstream.exactly(4).await, "body");
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_100_continue() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let asked = request(&port, "POST /", EXPECT).replacen("HTTP/1.1", "HTTP/1.0", 1);
    app.send(asked + "body").await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "expect"), None, "{head}");
    assert_eq!(upstream.exactly(4).await, "body");
    upstream.send(OK).await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

#[tokio::test]
async fn over_http2_the_body_is_sent_at_once() {
    let service = Streams::start().await;
    let metadata = super::Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let flags = service.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&metadata, &flags).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    let host = "storage.googleapis.com";
    app.send(format!(
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{EXPECT}\r\n"
    ))
    .await;
    let mut call = service.next().await;
    assert_eq!(call.head.headers["expect"], "100-continue");
    assert_eq!(app.head().await, CONTINUE);
    app.send("body").await;
    let (body, _) = whole(&mut call.body).await.unwrap();
    assert_eq!(body, "body");
    call.answer("ok");
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_a_token_or_an_upstream_there_is_no_100_continue() {
    let (port, metadata, sidecar, mut app) = between(&TOKEN).await;
    metadata.script(Kind::Access, [Answer::status(503, "not now")]);
    app.send(request(&port, "POST /", EXPECT)).await;
    let (head, problem) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(problem.contains("token:"), "{problem}");
    port.untouched().await;
    drop(app);

    let metadata = super::support::metadata::Metadata::start().await;
    let other = Sidecar::start(&metadata, &[]).await;
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
async fn a_final_response_instead_of_100_continue_needs_no_body() {
    for status in ["417", "403", "413", "200", "307"] {
        let (port, _metadata, sidecar, mut app) = between(&[]).await;
        app.send(request(&port, "POST /", EXPECT)).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream
            .send(format!(
                "HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\nn"
            ))
            .await;
        let head = app.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        // The response may take longer than the wait for 100. The body is then not sent.
        upstream.silent().await;
        upstream.send("o").await;
        assert_eq!(app.exactly(2).await, "no");
        // It is unknown whether the body follows on this connection (RFC 9112, 9.3), so it is closed at once.
        let since = Instant::now();
        assert_eq!(upstream.rest().await, "", "{status}");
        assert!(since.elapsed().as_secs() < 3, "{:?}", since.elapsed());
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
}

#[tokio::test]
async fn a_body_held_back_is_sent_with_the_new_token_after_a_401() {
    // A body of this size could not have been copied.
    let large = "x".repeat(100_000);
    for body in ["body", &large] {
        let (port, metadata, _sidecar, mut app) = between(&TOKEN).await;
        metadata.script(
            Kind::Access,
            [Answer::access("T1", 3600), Answer::access("T2", 3600)],
        );
        let fields = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
        app.send(request(&port, "PUT /", &fields)).await;
        let mut first = port.accept().await;
        let head = first.head().await;
        assert_eq!(field(&head, "authorization"), Some("Bearer T1"));
        first
            .send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            .await;
        let mut second = port.accept().await;
        assert_eq!(first.rest().await, "");
        let head = second.head().await;
        assert_eq!(field(&head, "authorization"), Some("Bearer T2"));
        assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
        app.silent().await;
        second.send(CONTINUE).await;
        assert_eq!(app.head().await, CONTINUE);
        app.send(body).await;
        assert_eq!(second.exactly(body.len()).await, body);
        second.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
}

#[tokio::test]
async fn a_body_sent_before_the_401_is_not_sent_twice() {
    let (port, metadata, _sidecar, mut app) = between(&TOKEN).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    app.send(request(&port, "PUT /", EXPECT)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send(CONTINUE).await;
    assert_eq!(app.head().await, CONTINUE);
    app.send("bo").await;
    assert_eq!(upstream.exactly(2).await, "bo");
    upstream
        .send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    port.untouched().await;
}

#[tokio::test]
async fn an_app_that_disconnects_before_100_continue_is_not_awaited() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "POST /", EXPECT)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    drop(app);
    assert_eq!(upstream.rest().await, "");
}

#[tokio::test]
async fn the_response_timeout_starts_after_a_slow_upload() {
    let (port, _metadata, sidecar, mut app) = between(&["--response-timeout", "1s"]).await;
    for framing in ["Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"] {
        app.send(request(&port, "POST /", framing)).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        // Longer than the response timeout. The wait is the subject of the test, not synchronisation.
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
async fn a_late_response_head_is_a_timeout_but_a_slow_body_is_not() {
    let (port, _metadata, _sidecar, mut app) = between(&["--response-timeout", "1s"]).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert!(head.contains("http_response_timeout"), "{head}");
    // The request was abandoned, and the upstream's connection is closed.
    assert_eq!(upstream.rest().await, "");
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await;
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
    // Longer than the response timeout: the head has arrived, and the body may take any time.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    upstream.send("k").await;
    assert_eq!(app.exactly(2).await, "ok");
}

#[tokio::test]
async fn interim_responses_do_not_extend_the_response_timeout() {
    const WAIT: &str = "HTTP/1.1 102 Processing\r\n\r\n";
    let (port, _metadata, sidecar, _) = between(&["--response-timeout", "1s"]).await;
    let proxy = sidecar.proxy();
    for (endless, status) in [(false, "504"), (true, "502")] {
        let asked = request(&port, "GET /", "Connection: close\r\n");
        let answer = tokio::spawn(async move { raw(proxy, asked.as_bytes()).await });
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream.send(WAIT.repeat(32)).await;
        while endless && upstream.try_send(WAIT.repeat(64)).await.is_ok() {}
        let answer = answer.await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_slow_token_is_not_a_timeout_of_the_response() {
    let args = [
        "--rule",
        "127.0.0.1=access,plaintext=allow",
        "--response-timeout",
        "100ms",
        "--token-timeout",
        "1s",
    ];
    let (port, metadata, _sidecar, mut app) = between(&args).await;
    let gate = Gate::new();
    metadata.script(Kind::Access, [Answer::access("T1", 3600).behind(&gate)]);
    app.send(request(&port, "GET /", "")).await;
    let (head, body) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.contains("token: "), "{body}");
}

#[tokio::test]
async fn a_final_response_instead_of_100_announces_the_close() {
    let args = ["--rule", "denied.test=deny"];
    let (port, _metadata, sidecar, mut app) = between(&args).await;
    app.send(request(&port, "POST /", EXPECT)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let (head, body) = app.message().await;
    assert_eq!(field(&head, "connection"), Some("close"), "{head}");
    assert_eq!(body, "no");
    assert_eq!(app.rest().await, "");

    // The sidecar's own response too.
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(format!(
        "POST http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n{EXPECT}\r\n"
    ))
    .await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "{head}");
    assert_eq!(app.rest().await, "");
}
