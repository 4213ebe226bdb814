//! Upstreams that misbehave: the caller gets the documented error, the log has a line, and the next call succeeds.

use serde_json::Value;

use super::http1::{between, request};
use super::support::hostile::{Hostile, accept_tls};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::sidecar::Sidecar;
use super::support::tls::{Leaf, TestCa};
use super::support::wire::{Wire, field};

const QUIET: [&str; 2] = ["--log-level", "info"];
const GRPC: &str = "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 5\r\n";

/// Makes a call to `url`, and a gRPC call to the same URL.
async fn told(sidecar: &Sidecar, url: &str, status: u16, error: &str, grpc: &str) {
    let host = url.split('/').nth(2).unwrap();
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    let (head, body) = app.message().await;
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{error}: {head}"
    );
    assert_eq!(
        field(&head, "content-type"),
        Some("application/problem+json")
    );
    let told = field(&head, "proxy-status").unwrap();
    assert!(
        told.starts_with(&format!("sidentity; error={error}; ")),
        "{told}"
    );
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status);

    app.send(format!(
        "POST {url} HTTP/1.1\r\nHost: {host}\r\n{GRPC}\r\n\0\0\0\0\0"
    ))
    .await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{error}: {head}");
    assert_eq!(field(&head, "grpc-status"), Some(grpc), "{error}: {head}");
    assert!(
        field(&head, "proxy-status").unwrap().contains(error),
        "{head}"
    );
}

/// Returns the log lines of this error once there are two: one for each call.
async fn two_lines(sidecar: &Sidecar, error: &str) {
    let of = |line: &Value| line["error"] == error;
    sidecar
        .logged(|line| of(line) && line["httpRequest"]["requestMethod"] == "POST")
        .await;
    let log = sidecar.log();
    let lines: Vec<_> = log
        .iter()
        .filter(|line| line["httpRequest"].is_object())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| of(line)), "{lines:#?}");
    let others = |line: &&Value| matches!(line["severity"].as_str(), Some("WARNING" | "ERROR"));
    assert_eq!(log.iter().filter(others).count(), 2, "{log:#?}");
}

/// Makes a call to an honest upstream.
async fn serves(sidecar: &Sidecar) {
    let honest = Hostile::always(super::support::hostile::HELLO).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    let at = honest.address;
    app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
        .await;
    assert_eq!(app.message().await.1, "hello");
}

#[tokio::test]
async fn broken_upstreams_are_502_and_stalled_ones_504() {
    let terminated = (502, "connection_terminated", "14");
    let protocol = (502, "http_protocol_error", "14");
    for (what, upstream, (status, error, grpc)) in [
        ("closes", Hostile::closes_after_head().await, terminated),
        ("slams", Hostile::slams().await, terminated),
        ("resets", Hostile::resets().await, terminated),
        (
            "stops in its head",
            Hostile::once("HTTP/1.1 200 OK\r\nX-").await,
            terminated,
        ),
        ("babbles", Hostile::babbles().await, protocol),
        (
            "sends interim responses without end",
            Hostile::storms(100_000).await,
            protocol,
        ),
        (
            "never ends its head",
            Hostile::endless_headers().await,
            protocol,
        ),
        (
            "stalls",
            Hostile::stalls().await,
            (504, "http_response_timeout", "4"),
        ),
        (
            "is mute",
            Hostile::mute().await,
            (504, "http_response_timeout", "4"),
        ),
    ] {
        let metadata = Metadata::start().await;
        let sidecar = Sidecar::start(
            &metadata,
            &[&QUIET[..], &["--response-timeout", "1s"]].concat(),
        )
        .await;
        println!("{what}");
        told(
            &sidecar,
            &format!("http://{}/", upstream.address),
            status,
            error,
            grpc,
        )
        .await;
        two_lines(&sidecar, error).await;
        serves(&sidecar).await;
    }
}

#[tokio::test]
async fn thirty_two_interim_responses_end_in_the_final_one() {
    let upstream = Hostile::storms(32).await;
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &[]).await;
    let at = upstream.address;
    let mut app = Wire::open(sidecar.proxy()).await;
    for _ in 0..2 {
        app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
            .await;
        assert_eq!(app.message().await.1, "hello");
    }
    assert_eq!(upstream.accepted(), 1);
}

#[tokio::test]
async fn a_truncated_body_is_truncated_for_the_app() {
    let (port, _metadata, sidecar, _) = between(&[]).await;
    for (what, head, part) in [
        ("a length", "Content-Length: 10\r\n", "part"),
        ("chunks", "Transfer-Encoding: chunked\r\n", "4\r\npart\r\n"),
        (
            "within a chunk",
            "Transfer-Encoding: chunked\r\n",
            "9\r\npart",
        ),
        (
            "no chunk",
            "Transfer-Encoding: chunked\r\n",
            "4\r\npart\r\nnonsense\r\n",
        ),
    ] {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream
            .send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{part}"))
            .await;
        let head = app.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
        drop(upstream);
        let rest = app.rest().await;
        let length = field(&head, "content-length");
        assert!(
            length.is_some_and(|length| rest.len() < length.parse().unwrap())
                || length.is_none() && !rest.ends_with("0\r\n\r\n"),
            "{what}: it ended as if it were whole: {rest:?}"
        );
        assert!(rest.contains("part"), "{what}: {rest:?}");
    }
    serves(&sidecar).await;
}

/// A connection that closes without a byte looks like a stale one, and such a request is resent.
#[tokio::test]
async fn a_response_whose_body_fails_at_once_keeps_its_head() {
    let (port, _metadata, sidecar, _) = between(&[]).await;
    for (what, rest) in [
        ("no chunk", "nonsense\r\n"),
        ("no trailer", "0\r\n\0: 1\r\n\r\n"),
        ("a chunk, then none", "4\r\npart\r\nnonsense\r\n"),
    ] {
        for method in ["GET", "POST"] {
            let mut app = Wire::open(sidecar.proxy()).await;
            app.send(request(
                &port,
                &format!("{method} /"),
                "Content-Length: 0\r\n",
            ))
            .await;
            let mut upstream = port.accept().await;
            upstream.head().await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            upstream.send(format!("{head}{rest}")).await;
            let answer = app.rest().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer:?}");
            assert!(!answer.ends_with("0\r\n\r\n"), "{what}: {answer:?}");
            assert_eq!(
                answer.contains("part"),
                rest.contains("part"),
                "{what}: {answer:?}"
            );
        }
    }
    serves(&sidecar).await;
}

#[tokio::test]
async fn bytes_beyond_the_length_are_not_used_as_a_response() {
    let upstream = Hostile::says_more_than_it_told().await;
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &[]).await;
    let at = upstream.address;
    let mut app = Wire::open(sidecar.proxy()).await;
    for _ in 0..3 {
        app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
            .await;
        assert_eq!(app.message().await.1, "hello");
    }
    app.silent().await;
    assert_eq!(upstream.accepted(), 3);
}

/// Starts a sidecar whose every upstream has this leaf, signed by a trusted authority or by another one.
async fn presented(leaf: Leaf, trusted: &TestCa) -> (Hostile, Metadata, Sidecar) {
    let config = leaf.serving(&["http/1.1"]);
    let upstream = Hostile::without_close_notify(config, super::support::hostile::HELLO).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &trusted.pem).unwrap();
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let to = format!("*:443:{}", upstream.address);
    let ca = ca.display().to_string();
    let args = [&QUIET[..], &["--connect-to", &to, "--upstream-ca", &ca]].concat();
    let sidecar = Sidecar::start(&metadata, &args).await;
    (upstream, metadata, sidecar)
}

#[tokio::test]
async fn an_invalid_certificate_is_reported_and_no_token_is_sent() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let host = "storage.googleapis.com";
    for (what, leaf) in [
        ("the wrong name", ca.leaf(&["elsewhere.example.com"])),
        ("expired", ca.expired_leaf(&[host])),
        ("an unknown authority", other.leaf(&[host])),
    ] {
        println!("{what}");
        let (upstream, _metadata, sidecar) = presented(leaf, &ca).await;
        told(
            &sidecar,
            &format!("http://{host}/"),
            502,
            "tls_certificate_error",
            "14",
        )
        .await;
        assert!(upstream.heads().is_empty());
        two_lines(&sidecar, "tls_certificate_error").await;
        serves(&sidecar).await;
    }
}

#[tokio::test]
async fn a_complete_response_needs_no_close_notify() {
    let ca = TestCa::new();
    let (upstream, _metadata, sidecar) = presented(ca.leaf(&["storage.googleapis.com"]), &ca).await;
    for _ in 0..2 {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n",
        )
        .await;
        assert_eq!(app.message().await.1, "hello");
    }
    assert!(
        upstream
            .heads()
            .iter()
            .all(|head| head.contains("Bearer T1")),
        "{:?}",
        upstream.heads()
    );
}

#[tokio::test]
async fn a_response_delimited_by_close_needs_a_close_notify() {
    let ca = TestCa::new();
    let config = ca.leaf(&["storage.googleapis.com"]).serving(&["http/1.1"]);
    let upstream = Hostile::start(move |stream, stage| {
        let config = config.clone();
        async move {
            use tokio::io::AsyncWriteExt;
            let mut stream = accept_tls(config, stream).await;
            stage.head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\npart")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            stream.into_inner().0.shutdown().await.unwrap();
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let to = format!("*:443:{}", upstream.address);
    let file = file.display().to_string();
    let sidecar = Sidecar::start(&metadata, &["--connect-to", &to, "--upstream-ca", &file]).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send("GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n")
        .await;
    app.head().await;
    assert!(!app.rest().await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn an_unprocessed_request_is_retried_but_a_post_is_never_sent_twice() {
    for (method, length, status, calls) in [
        ("GET", None, 200, 3),
        ("HEAD", None, 200, 3),
        ("DELETE", None, 200, 3),
        ("PUT", Some(2), 502, 2),
        ("POST", None, 502, 2),
        ("POST", Some(2), 502, 2),
        ("PATCH", None, 502, 2),
    ] {
        let upstream = Hostile::closes_on_reuse().await;
        let at = upstream.address;
        let metadata = Metadata::start().await;
        let sidecar = Sidecar::start(&metadata, &[]).await;
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
            .await;
        assert_eq!(app.message().await.1, "hello");
        let fields = length.map_or_else(String::new, |length| {
            format!("Content-Length: {length}\r\n")
        });
        let body = if length.is_some() { "hi" } else { "" };
        app.send(format!(
            "{method} http://{at}/ HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n{body}"
        ))
        .await;
        let head = app.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method}: {head}"
        );
        assert_eq!(upstream.heads().len(), calls, "{method} {length:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_closed_by_the_upstream_fails_no_call() {
    let upstream = Hostile::closes_idle().await;
    let at = upstream.address;
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &[]).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    for round in 1..=20 {
        app.send(format!(
            "POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
        assert_eq!(app.message().await.1, "hello", "round {round}");
        upstream.closed(round).await;
        // The upstream has closed the connection. After a moment the sidecar has noticed.
        app.silent().await;
    }
}
