//! Backpressure: a peer that does not read slows the peer that writes. A peer that disconnects is noticed at once.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http1::{between, request};
use super::support::app::{get, text};
use super::support::metadata::{Answer, Gate, Kind};
use super::support::sidecar::Sidecar;
use super::support::wire::Wire;

const SIZE: usize = 200 << 20;
const LIMIT: u64 = 64 * 1024;

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";

/// Writes until no byte is accepted for a while, and returns the number of accepted bytes.
async fn flood(wire: &mut Wire, mut left: usize) -> usize {
    static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut taken = 0;
    while left > 0 {
        let length = left.min(CHUNK.len());
        let write = wire.stream().write(&CHUNK[..length]);
        // If there is no progress for this time, the peer does not read.
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(written) => {
                let written = written.unwrap();
                taken += written;
                left -= written;
            }
            Err(_) => break,
        }
    }
    taken
}

async fn drained(wire: &mut Wire, mut left: usize) {
    while left > 0 {
        let some = wire.some(left.min(1 << 20)).await;
        assert!(!some.is_empty(), "{left} bytes are missing");
        left -= some.len();
    }
}

/// Writes from `from` to `to`, which reads nothing until `from` is blocked.
async fn held_up(sidecar: &Sidecar, from: &mut Wire, to: &mut Wire) {
    let taken = flood(from, SIZE).await;
    assert!(
        taken < SIZE / 4,
        "{taken} bytes were taken although the client does not read"
    );
    let peak = sidecar.peak_memory();
    assert!(peak < LIMIT, "{peak} KiB with {taken} bytes under way");
    let rest = async {
        let mut left = SIZE - taken;
        while left > 0 {
            left -= flood(from, left).await;
        }
    };
    tokio::join!(rest, drained(to, SIZE));
    let peak = sidecar.peak_memory();
    assert!(peak < LIMIT, "{peak} KiB in the end");
}

#[tokio::test]
async fn an_app_that_does_not_read_slows_the_upstream() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
        .await;
    app.head().await;
    held_up(&sidecar, &mut upstream, &mut app).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_read_slows_the_app() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(
        &port,
        "POST /",
        &format!("Content-Length: {SIZE}\r\n"),
    ))
    .await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    held_up(&sidecar, &mut app, &mut upstream).await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn a_tunnel_slows_the_faster_writer() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(
        &port,
        "GET /",
        "Connection: upgrade\r\nUpgrade: x\r\n",
    ))
    .await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send(SWITCHED).await;
    app.head().await;
    held_up(&sidecar, &mut app, &mut upstream).await;
    held_up(&sidecar, &mut upstream, &mut app).await;
}

/// Waits until this number of calls was cancelled and none is in flight.
async fn cancelled(sidecar: &Sidecar, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let total = format!(
        "sidentity_requests_total{{code=\"cancelled\",credential=\"none\",listener=\"proxy\"}} {count}"
    );
    let none = "sidentity_requests_in_flight{listener=\"proxy\"} 0";
    loop {
        let metrics = get(sidecar.admin(), "/metrics").await;
        let has = |wanted: &str| text(&metrics).lines().any(|line| line == wanted);
        if has(&total) && has(none) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no {total} in {}",
            text(&metrics)
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_caller_that_disconnects_cancels_the_upstream_request_at_once() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    // The caller waits for a response.
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    drop(app);
    assert_eq!(upstream.rest().await, "");
    cancelled(&sidecar, 1).await;

    // The caller has a part of the response.
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        .await;
    app.head().await;
    drop(app);
    assert_eq!(upstream.rest().await, "");
    cancelled(&sidecar, 2).await;

    // The caller has sent a part of its body: the upstream must not accept it as complete.
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "POST /", "Transfer-Encoding: chunked\r\n"))
        .await;
    app.send("1\r\na\r\n").await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    assert_eq!(upstream.exactly(6).await, "1\r\na\r\n");
    drop(app);
    assert_eq!(upstream.rest().await, "");
    cancelled(&sidecar, 3).await;

    // The response has a known length and is incomplete.
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        .await;
    app.head().await;
    drop(app);
    assert_eq!(upstream.rest().await, "");
    cancelled(&sidecar, 4).await;
}

#[tokio::test]
async fn an_invalid_request_body_is_reported_and_counted() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "POST /", "Transfer-Encoding: chunked\r\n"))
        .await;
    app.send("1\r\na\r\n").await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.exactly(6).await;
    app.send("no size\r\n").await;
    assert_eq!(
        upstream.rest().await,
        "",
        "it must not end as a whole body does"
    );
    assert!(app.head().await.starts_with("HTTP/1.1 400 "));
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 400)
        .await;
    assert_eq!(line["error"], "http_request_error", "{line:#}");
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cancel_the_token_fetch() {
    let args = ["--rule", "127.0.0.1=access,plaintext=allow"];
    let (port, metadata, sidecar, mut app) = between(&args).await;
    let gate = Gate::new();
    metadata.script(Kind::Access, [Answer::access("T1", 3600).behind(&gate)]);
    app.send(request(&port, "GET /", "")).await;
    metadata.arrived(Kind::Access, 1).await;
    drop(app);
    let gone =
        "sidentity_requests_total{code=\"cancelled\",credential=\"access\",listener=\"proxy\"} 1";
    let deadline = Instant::now() + Duration::from_secs(20);
    while !text(&get(sidecar.admin(), "/metrics").await).contains(gone) {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(app.message().await.1, "ok");
    assert_eq!(metadata.count(Kind::Access), 1);
}

/// hyper does not read the socket then, so it does not see that the caller has gone.
#[tokio::test]
async fn a_caller_that_disconnects_after_further_bytes_is_noticed() {
    let (port, _metadata, sidecar, _app) = between(&[]).await;
    let get = request(&port, "GET /", "");
    for (count, further) in ["\r\n", "G", &get].into_iter().enumerate() {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(format!("{get}{further}")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        drop(app);
        assert_eq!(upstream.rest().await, "", "{further:?}");
        cancelled(&sidecar, count + 1).await;
    }
}

/// Nothing but the close ends such a response.
#[tokio::test]
async fn a_truncated_response_does_not_look_complete_to_an_http10_app() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let get = request(&port, "GET /", "").replacen("HTTP/1.1", "HTTP/1.0", 1);
    app.send(get).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    app.until(b"hello").await;
    drop(upstream);
    let mut rest = [0; 16];
    let ended = tokio::io::AsyncReadExt::read(&mut app.stream(), &mut rest).await;
    let error = ended.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Neither the app's connection nor the upstream's is read or written then.
#[tokio::test]
async fn a_caller_that_resets_while_its_upload_stalls_is_noticed() {
    let (port, _metadata, sidecar, _app) = between(&[]).await;
    let stream = TcpStream::connect(sidecar.proxy()).await.unwrap();
    let linger = Some(Duration::ZERO);
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(linger).unwrap();
    let mut app = Wire::over(stream);
    let fields = "Content-Length: 100000000\r\n";
    app.send(request(&port, "POST /", fields)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    flood(&mut app, 100_000_000).await;
    drop(app);
    cancelled(&sidecar, 1).await;
}
