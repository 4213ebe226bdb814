//! `--max-memory`: above it idle connections are closed, then requests get 503.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http1::{between, request};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// More connections than fit into the smallest budget.
const MANY: usize = 64;

async fn started() -> (Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &["--max-memory", "1Mi"]).await;
    (metadata, sidecar)
}

#[tokio::test]
async fn over_the_budget_idle_connections_close_and_every_call_is_answered() {
    let (_metadata, sidecar) = started().await;
    let mut app = Wire::open(sidecar.proxy()).await;
    let mut idle = Vec::new();
    for _ in 0..MANY {
        let port = Port::open().await;
        app.send(request(&port, "GET /", "")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream.send(OK).await;
        let (head, _) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        idle.push(upstream);
    }
    // The first connections were closed to make room.
    assert_eq!(idle[0].rest().await, "");
    assert_eq!(idle[1].rest().await, "");
}

#[tokio::test]
async fn over_the_budget_with_nothing_idle_is_503_until_something_ends() {
    let (_metadata, sidecar) = started().await;
    let port = Port::open().await;
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < MANY, "nothing was refused");
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        let upstream = tokio::select! {
            upstream = port.accept() => upstream,
            (head, body) = app.message() => break format!("{head}{body}"),
        };
        held.push((app, upstream));
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.contains("sidentity; error=connection_limit_reached"),
        "{refused}"
    );
    assert!(refused.contains("--max-memory"), "{refused}");

    for (app, upstream) in &mut held {
        upstream.head().await;
        upstream.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
    drop(held);
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

/// Returns whether the response refuses the request because of the memory of large heads.
fn is_full(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 ")
        && answer.contains("sidentity; error=connection_limit_reached")
        && answer.contains("large heads hold")
}

#[tokio::test]
async fn large_heads_over_their_share_are_503_and_small_ones_pass() {
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &["--max-memory", "8Mi"]).await;
    let port = Port::open().await;
    let large = format!("X-Large: {}\r\n", "a".repeat(350_000));
    let mut held = Vec::new();
    loop {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", &large)).await;
        let upstream = tokio::select! {
            upstream = port.accept() => upstream,
            answer = app.rest() => {
                assert!(is_full(&answer), "{answer}");
                break;
            }
        };
        held.push((app, upstream));
    }
    assert_eq!(held.len(), 2, "1 MiB");
    // This head is incomplete.
    let mut app = Wire::open(sidecar.proxy()).await;
    let mut part = request(&port, "GET /", &large);
    part.truncate(part.len() - 2);
    app.send(part).await;
    let answer = app.rest().await;
    assert!(is_full(&answer), "{answer}");

    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");

    // Their ends free the memory.
    for (app, upstream) in &mut held {
        upstream.head().await;
        upstream.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
    // The memory of one of them is needed.
    let (app, _) = &mut held[0];
    assert_eq!(app.rest().await, "");
    drop(held);
}

/// Answers with a long body, and writes until no byte was accepted for a while.
async fn pour(mut upstream: Wire) -> Wire {
    const STUCK: Duration = Duration::from_secs(1);
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    let zeros = [0; 64 * 1024];
    while let Ok(written) = timeout(STUCK, upstream.stream().write(&zeros)).await {
        written.unwrap();
    }
    upstream
}

#[tokio::test]
async fn forty_unread_downloads_hold_at_most_350_kib_each() {
    const DOWNLOADS: u64 = 40;
    let (port, _metadata, sidecar, _app) = between(&[]).await;
    let before = sidecar.peak_memory();
    let mut unread = Vec::new();
    let mut pouring = JoinSet::new();
    for _ in 0..DOWNLOADS {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        pouring.spawn(pour(port.accept().await));
        unread.push(app);
    }
    let stuck = pouring.join_all().await;
    let each = (sidecar.peak_memory() - before) / DOWNLOADS;
    assert!(each < 350, "{each} KiB for each download");
    drop(stuck);
}
