//! Several workers: each serves its connections apart from the others.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::UnixStream;

use super::intercept;
use super::support::app::HeldConnection;
use super::support::metadata::Metadata;
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire};
use super::{started, started_with};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An app with two connections to a sidecar with two workers. Each is served by another worker, because the second
/// connection is opened while the first is open.
struct TwoConnections {
    sidecar: Sidecar,
    upstream: Port,
    first: Wire,
    second: Wire,
    _metadata: Metadata,
}

impl TwoConnections {
    async fn open(args: &[&str]) -> Self {
        let metadata = Metadata::start().await;
        let sidecar = Sidecar::start(&metadata, &[&["--workers", "2"], args].concat()).await;
        let upstream = Port::open().await;
        let mut wires = Vec::new();
        for _ in 0..2 {
            let mut wire = Wire::open(sidecar.proxy()).await;
            // The connection is open once it has been answered.
            wire.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
                .await;
            assert!(wire.message().await.0.starts_with("HTTP/1.1 502 "));
            wires.push(wire);
        }
        let [first, second] = wires.try_into().unwrap_or_else(|_| unreachable!());
        Self {
            sidecar,
            upstream,
            first,
            second,
            _metadata: metadata,
        }
    }

    fn get(&self) -> String {
        let at = self.upstream.address();
        format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n")
    }

    /// Makes a call on the first connection, then one on the second. Returns the connections of the upstream.
    async fn call_one_by_one(&mut self) -> [Wire; 2] {
        let get = self.get();
        self.first.send(&get).await;
        let mut of_first = self.upstream.accept().await;
        answer(&mut of_first, &mut self.first).await;
        self.second.send(&get).await;
        let mut of_second = self.upstream.accept().await;
        answer(&mut of_second, &mut self.second).await;
        [of_first, of_second]
    }

    /// Begins the drain with a request in flight on each connection. Returns the connections of the upstream.
    async fn drain_with_requests(&mut self) -> [Wire; 2] {
        let get = self.get();
        self.first.send(&get).await;
        let mut of_first = self.upstream.accept().await;
        of_first.head().await;
        self.second.send(&get).await;
        let mut of_second = self.upstream.accept().await;
        of_second.head().await;
        self.sidecar.signal("TERM");
        let draining = |line: &Value| line["in_flight"] == 2;
        self.sidecar.logged(draining).await;
        [of_first, of_second]
    }
}

/// Answers a request on an upstream connection.
async fn answer(upstream: &mut Wire, app: &mut Wire) {
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn an_app_connection_reuses_the_upstream_connection_of_its_worker() {
    let mut app = TwoConnections::open(&[]).await;
    let get = app.get();
    let [mut of_first, mut of_second] = app.call_one_by_one().await;
    for _ in 0..3 {
        app.second.send(&get).await;
        answer(&mut of_second, &mut app.second).await;
        app.first.send(&get).await;
        answer(&mut of_first, &mut app.first).await;
    }
}

#[tokio::test]
async fn the_limit_of_idle_connections_counts_those_of_all_workers() {
    let mut app = TwoConnections::open(&["--max-idle-connections", "1"]).await;
    let get = app.get();
    let [mut of_first, mut of_second] = app.call_one_by_one().await;
    assert_eq!(of_first.rest().await, "");
    app.second.send(&get).await;
    answer(&mut of_second, &mut app.second).await;
}

#[tokio::test]
async fn requests_on_every_worker_are_drained() {
    let mut app = TwoConnections::open(&[]).await;
    let [mut of_first, mut of_second] = app.drain_with_requests().await;
    of_second.send(OK).await;
    assert_eq!(app.second.message().await.1, "ok");
    of_first.send(OK).await;
    assert_eq!(app.first.message().await.1, "ok");
    assert_eq!(app.sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_requests_of_every_worker() {
    let mut app = TwoConnections::open(&[]).await;
    let [mut of_first, mut of_second] = app.drain_with_requests().await;
    let began = Instant::now();
    app.sidecar.signal("TERM");
    assert_eq!(app.sidecar.ended().await.code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(3));
    for wire in [
        &mut app.first,
        &mut app.second,
        &mut of_first,
        &mut of_second,
    ] {
        wire.rest().await;
    }
}

#[tokio::test]
async fn a_tunnel_on_another_worker_is_intercepted() {
    let folder = tempfile::tempdir().unwrap();
    let ca_dir = folder.path().to_str().unwrap();
    let service = Service::start().await;
    let args = ["--workers", "2", "--intercept", "--ca-dir", ca_dir];
    let (_metadata, sidecar) = started_with(&service, &args).await;
    let _first = HeldConnection::open(sidecar.proxy(), "http://storage.googleapis.com/").await;
    let (target, ca) = ("storage.googleapis.com:443", folder.path().join("ca.pem"));
    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        let tls = intercept::tls(sidecar.proxy(), target, &ca, &[alpn]).await;
        let request = intercept::request(alpn, "storage.googleapis.com", "/");
        let response = intercept::call(tls.unwrap(), request).await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(service.seen().len(), 3);
}

#[tokio::test]
async fn a_unix_socket_is_served_by_another_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("route");
    let route = format!("unix:{}=https://storage.googleapis.com", path.display());
    let (_metadata, service, sidecar) = started(&["--workers", "2", "--route", &route]).await;
    let _first = HeldConnection::open(sidecar.proxy(), "http://storage.googleapis.com/").await;
    let mut app = Wire::over(UnixStream::connect(&path).await.unwrap());
    for _ in 0..2 {
        app.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(app.message().await.0.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(service.seen().len(), 3);
}
