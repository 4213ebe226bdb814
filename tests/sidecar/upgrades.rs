//! WebSocket and other protocols after `101`.

use serde_json::Value;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;

use super::http1::{between, request};
use super::is_for;
use super::support::app::{get, text};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::tls;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire, field};

const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A masked text frame of an app (RFC 6455, 5.2), and its meaning for the service.
const PING: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
/// An unmasked frame of a service.
const PONG: &[u8] = b"\x81\x05Hello";

async fn switched(port: &Port, app: &mut Wire) -> (String, Wire) {
    app.send(request(port, "GET /chat", HANDSHAKE)).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    upstream.send(SWITCHED).await;
    let answer = app.head().await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    (head, upstream)
}

/// Returns the metrics once they contain this line.
async fn metric(sidecar: &Sidecar, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let metrics = get(sidecar.admin(), "/metrics").await;
        if text(&metrics).lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < deadline, "no {line} in {}", text(&metrics));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_websocket_through_the_proxy_gets_a_token_and_is_counted() {
    let args = [
        "--rule",
        "127.0.0.1=access,plaintext=allow",
        "--access-log",
        "all",
    ];
    let (port, metadata, sidecar, mut app) = between(&args).await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    app.send(request(&port, "GET /chat", HANDSHAKE)).await;
    // Some apps do not wait for the response.
    app.send(PING).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    for (name, value) in [
        ("authorization", "Bearer T1"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    // Bytes that the service sends immediately are not lost.
    upstream.send([SWITCHED.as_bytes(), PONG].concat()).await;
    let answer = app.head().await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert_eq!(field(&answer, "upgrade"), Some("websocket"));
    assert_eq!(field(&answer, "connection"), Some("Upgrade"));
    assert_eq!(
        field(&answer, "sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(app.some(7).await, PONG);
    assert_eq!(upstream.some(11).await, PING);
    let opened = Instant::now();
    metric(
        &sidecar,
        "sidentity_requests_in_flight{listener=\"proxy\"} 1",
    )
    .await;
    for _ in 0..3 {
        app.send(PING).await;
        assert_eq!(upstream.some(11).await, PING);
        upstream.send(PONG).await;
        assert_eq!(app.some(7).await, PONG);
    }
    let open = opened.elapsed();
    app.finish().await;
    assert_eq!(upstream.rest().await, "");
    drop(upstream);
    assert_eq!(app.rest().await, "");
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 101)
        .await;
    assert_eq!(line["httpRequest"]["requestSize"], "44", "{line:#}");
    assert_eq!(line["httpRequest"]["responseSize"], "28", "{line:#}");
    metric(
        &sidecar,
        "sidentity_requests_in_flight{listener=\"proxy\"} 0",
    )
    .await;
    let labels = "credential=\"access\",listener=\"proxy\"";
    metric(
        &sidecar,
        &format!("sidentity_request_duration_seconds_count{{{labels}}} 1"),
    )
    .await;
    let metrics = get(sidecar.admin(), "/metrics").await;
    let sum = format!("sidentity_request_duration_seconds_sum{{{labels}}} ");
    let timed = text(&metrics)
        .lines()
        .find_map(|line| line.strip_prefix(&sum));
    let timed: f64 = timed.unwrap().parse().unwrap();
    assert!(timed >= open.as_secs_f64(), "{timed} s of {open:?}");
    metric(
        &sidecar,
        "sidentity_requests_total{code=\"101\",credential=\"access\",listener=\"proxy\"} 1",
    )
    .await;
}

#[tokio::test]
async fn a_websocket_through_a_route_uses_http_1_1() {
    let port = Port::open().await;
    let folder = tempfile::tempdir().unwrap();
    let acceptor = TlsAcceptor::from(tls(folder.path(), &[b"h2", b"http/1.1"]));
    let metadata = Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let to = format!("*:443:{}", port.address());
    let ca = folder.path().join("ca.pem").display().to_string();
    let route = "127.0.0.1:0=https://chat.a.run.app";
    let sidecar = Sidecar::start(
        &metadata,
        &["--route", route, "--connect-to", &to, "--upstream-ca", &ca],
    )
    .await;
    let here = sidecar.address("127.0.0.1:0");
    let mut app = Wire::open(here).await;
    app.send(format!(
        "GET /chat HTTP/1.1\r\nHost: {here}\r\n{HANDSHAKE}\r\n"
    ))
    .await;
    let stream = acceptor.accept(port.accept_tcp().await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut upstream = Wire::over(stream);
    let head = upstream.head().await;
    assert!(
        is_for(field(&head, "authorization"), "https://chat.a.run.app"),
        "{head}"
    );
    assert_eq!(field(&head, "host"), Some("chat.a.run.app"));
    upstream.send(SWITCHED).await;
    assert!(app.head().await.starts_with("HTTP/1.1 101 "));
    app.send(PING).await;
    assert_eq!(upstream.some(11).await, PING);
    // The upstream has closed its half: the app may still send.
    upstream.send(PONG).await;
    upstream.finish().await;
    assert_eq!(app.some(7).await, PONG);
    assert_eq!(app.some(1).await, b"");
    app.send("late").await;
    assert_eq!(upstream.exactly(4).await, "late");
    app.finish().await;
    assert_eq!(upstream.rest().await, "");
}

#[tokio::test]
async fn each_side_may_close_its_half_first() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    let (_, mut upstream) = switched(&port, &mut app).await;
    app.send("last").await;
    app.finish().await;
    assert_eq!(upstream.rest().await, "last");
    upstream.send("still here").await;
    assert_eq!(app.exactly(10).await, "still here");
    drop(upstream);
    assert_eq!(app.rest().await, "");

    let mut app = Wire::open(sidecar.proxy()).await;
    let (_, mut upstream) = switched(&port, &mut app).await;
    upstream.send("last").await;
    upstream.finish().await;
    assert_eq!(app.rest().await, "last");
    app.send("still here").await;
    assert_eq!(upstream.exactly(10).await, "still here");
    app.finish().await;
    assert_eq!(upstream.rest().await, "");
}

#[tokio::test]
async fn eof_without_close_notify_closes_one_direction_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let port = Port::open().await;
    let folder = tempfile::tempdir().unwrap();
    let acceptor = TlsAcceptor::from(tls(folder.path(), &[b"http/1.1"]));
    let metadata = Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let to = format!("*:443:{}", port.address());
    let ca = folder.path().join("ca.pem").display().to_string();
    let sidecar = Sidecar::start(&metadata, &["--connect-to", &to, "--upstream-ca", &ca]).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    let host = "chat.a.run.app";
    app.send(format!(
        "GET http://{host}/chat HTTP/1.1\r\nHost: {host}\r\n{HANDSHAKE}\r\n"
    ))
    .await;
    let mut stream = acceptor.accept(port.accept_tcp().await).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let farewell = [SWITCHED, "last words"].concat();
    stream.write_all(farewell.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();

    assert!(app.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(app.exactly(10).await, "last words");
    assert_eq!(app.some(1).await, b"", "the end, and no reset");
    app.send("and mine").await;
    let mut record = [0; 29];
    let read = super::support::upstream::soon(tcp.read_exact(&mut record)).await;
    assert!(read.is_ok(), "the app's half was cut off: {read:?}");
    // This is application data, whatever its encrypted content (RFC 8446, 5.2).
    assert_eq!(record[..2], [23, 3]);
    app.finish().await;
}

/// The app would read the bytes of a protocol that it does not speak (RFC 9110, 7.8).
#[tokio::test]
async fn a_switch_to_a_protocol_that_was_not_offered_is_502() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /chat", HANDSHAKE)).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n")
        .await;
    let answer = app.head().await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        field(&answer, "proxy-status").is_some_and(|status| status.contains("http_protocol_error")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for status in [
        "200 OK",
        "400 Bad Request",
        "403 Forbidden",
        "426 Upgrade Required",
    ] {
        app.send(request(&port, "GET /chat", HANDSHAKE)).await;
        let wire: &mut Wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"))
            .await;
        let (head, body) = app.message().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert_eq!(body, "no");
    }
}

#[tokio::test]
async fn without_a_token_there_is_no_handshake() {
    let args = ["--rule", "127.0.0.1=access,plaintext=allow"];
    let (port, metadata, _sidecar, mut app) = between(&args).await;
    metadata.script(Kind::Access, [Answer::status(503, "not now")]);
    app.send(request(&port, "GET /chat", HANDSHAKE)).await;
    let (head, problem) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(problem.contains("token:"), "{problem}");
    port.untouched().await;
}

#[tokio::test]
async fn a_broken_tunnel_closes_the_other_side_and_logs_its_bytes() {
    let (port, _metadata, sidecar, mut app) = between(&["--access-log", "all"]).await;
    app.send(request(&port, "GET /chat", HANDSHAKE)).await;
    let upstream = port.accept_tcp().await;
    let mut upstream = ResetWire::over(upstream).await;
    upstream.send(SWITCHED.as_bytes()).await;
    app.head().await;
    app.send(PING).await;
    upstream.read(11).await;
    upstream.send(PONG).await;
    assert_eq!(app.some(7).await, PONG);
    upstream.reset();
    assert_eq!(app.rest().await, "");
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 101)
        .await;
    assert_eq!(line["httpRequest"]["requestSize"], "11", "{line:#}");
    assert_eq!(line["httpRequest"]["responseSize"], "7", "{line:#}");
}

#[tokio::test]
async fn an_open_websocket_delays_the_drain_up_to_its_timeout() {
    let (port, _metadata, mut sidecar, mut app) =
        between(&["--drain-timeout", "2s", "--access-log", "all"]).await;
    let (_, mut upstream) = switched(&port, &mut app).await;
    let began = Instant::now();
    sidecar.signal("TERM");
    let draining = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("draining"))
    };
    sidecar.logged(draining).await;
    app.send(PING).await;
    assert_eq!(upstream.some(11).await, PING);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(6),
        "{took:?}"
    );
    assert_eq!(app.rest().await, "");
    assert_eq!(upstream.rest().await, "");
}

#[tokio::test]
async fn a_websocket_that_ends_lets_the_drain_end() {
    let (port, _metadata, mut sidecar, mut app) = between(&["--drain-timeout", "25s"]).await;
    let (_, upstream) = switched(&port, &mut app).await;
    sidecar.signal("TERM");
    let draining = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("draining"))
    };
    sidecar.logged(draining).await;
    let began = Instant::now();
    drop((app, upstream));
    assert_eq!(sidecar.ended().await.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

/// An upstream's connection that the test can reset.
struct ResetWire(tokio::net::TcpStream);

impl ResetWire {
    async fn over(stream: tokio::net::TcpStream) -> Self {
        let mut this = Self(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(this.read(1).await);
        }
        this
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let mut bytes = vec![0; length];
        super::support::upstream::soon(self.0.read_exact(&mut bytes))
            .await
            .unwrap();
        bytes
    }

    async fn send(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt;
        super::support::upstream::soon(self.0.write_all(bytes))
            .await
            .unwrap();
    }

    fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}

#[tokio::test]
async fn a_websocket_whose_token_was_revoked_gets_a_new_one() {
    let args = ["--rule", "127.0.0.1=access,plaintext=allow"];
    let (port, metadata, _sidecar, mut app) = between(&args).await;
    metadata.script(
        Kind::Access,
        [Answer::access("T1", 3600), Answer::access("T2", 3600)],
    );
    app.send(request(&port, "GET /chat", HANDSHAKE)).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "authorization"), Some("Bearer T1"), "{head}");
    upstream
        .send("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "authorization"), Some("Bearer T2"), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
    assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    upstream.send(SWITCHED).await;
    let answer = app.head().await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    app.send(PING).await;
    assert_eq!(upstream.some(PING.len()).await, PING);
    upstream.send(PONG).await;
    assert_eq!(app.some(PONG.len()).await, PONG);
}
