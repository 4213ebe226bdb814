//! Many clients that send and read nothing, against the binary: its memory, and the service for other clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::support::app::{get, proxied};
use super::support::frames::{HEADERS, RST_STREAM, RawHttp2, get as get_block};
use super::support::hostile::{HELLO, Hostile};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use super::support::wire::{Wire, field};

/// The limit of resident memory in KiB.
const MEMORY: u64 = 64 * 1024;
const SOON: Duration = Duration::from_secs(2);
const QUIET: [&str; 2] = ["--log-level", "info"];

async fn flood(
    address: SocketAddr,
    authority: &str,
    connections: usize,
    requests: usize,
) -> Vec<RawHttp2> {
    let mut flood = Vec::new();
    for _ in 0..connections {
        let mut client = RawHttp2::open(address, 0).await;
        for _ in 0..requests {
            client.request(&get_block(authority, "/")).await;
        }
        // The response is a head or, if too many are unread, a reset.
        loop {
            let frame = client.next_within(10 * SOON).await.unwrap();
            if matches!(frame.kind, HEADERS | RST_STREAM) {
                break;
            }
        }
        flood.push(client);
    }
    flood
}

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    silent
}

#[tokio::test]
async fn a_flood_of_the_admin_port_does_not_block_probes() {
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &QUIET).await;
    let authority = sidecar.admin().to_string();
    let _flood = flood(sidecar.admin(), &authority, 40, 200).await;
    let began = Instant::now();
    assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let peak = sidecar.peak_memory();
    assert!(peak < MEMORY, "{peak} KiB");
}

#[tokio::test]
async fn a_flood_without_the_password_does_not_block_authenticated_callers() {
    let metadata = Metadata::start().await;
    let upstream = Hostile::always(HELLO).await;
    let args = [&QUIET[..], &["--proxy-auth", "user:secret"]].concat();
    let sidecar = Sidecar::start(&metadata, &args).await;
    let at = upstream.address.to_string();
    let _flood = flood(sidecar.proxy(), &at, 2, 4200).await;
    let began = Instant::now();
    let authorized = ("proxy-authorization", "Basic dXNlcjpzZWNyZXQ=");
    let url = format!("http://{at}/");
    let response = proxied(sidecar.proxy(), &url, &[authorized]).await;
    assert_eq!(response.status(), 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let peak = sidecar.peak_memory();
    assert!(peak < MEMORY, "{peak} KiB");
    let lines = sidecar.log();
    let refused = lines
        .iter()
        .filter(|line| line["httpRequest"]["status"] == 407)
        .count();
    assert!(refused <= 10, "{refused} lines");
}

#[tokio::test]
async fn silent_connections_leave_descriptors_for_others() {
    let metadata = Metadata::start().await;
    let upstream = Hostile::always(HELLO).await;
    let url = format!("http://{}/", upstream.address);
    let route = format!("127.0.0.1:0={url},credential=none");
    let args = [&QUIET[..], &["--route", &route]].concat();
    for listener in ["admin", "proxy", "127.0.0.1:0"] {
        let few = ["sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""];
        let sidecar = Sidecar::start_under(&few, &metadata, &args).await;
        let _silent = silent(sidecar.address(listener), 188).await;
        for (what, address, path) in [
            ("route", sidecar.address("127.0.0.1:0"), "/"),
            ("admin", sidecar.admin(), "/startup"),
        ] {
            let began = Instant::now();
            let status = get(address, path).await.status();
            assert_eq!(status, 200, "{listener} is flooded: {what}");
            assert!(began.elapsed() < SOON, "{what}: {:?}", began.elapsed());
        }
        assert_eq!(proxied(sidecar.proxy(), &url, &[]).await.status(), 200);
        let failed = |line: &serde_json::Value| line["message"] == "cannot accept a connection";
        let log = sidecar.log();
        let failed = log.iter().filter(|line| failed(line)).count();
        assert!(failed <= 1, "{failed} lines");
    }
}

/// A client with a large pool is not an attacker.
#[tokio::test]
async fn idle_connections_make_room_for_new_ones() {
    let metadata = Metadata::start().await;
    let upstream = Hostile::always(HELLO).await;
    let route = format!("127.0.0.1:0=http://{}/,credential=none", upstream.address);
    let args = [&QUIET[..], &["--route", &route]].concat();
    let few = ["sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""];
    let sidecar = Sidecar::start_under(&few, &metadata, &args).await;
    let mut waiting = Vec::new();
    for number in 0..150 {
        let mut app = Wire::open(sidecar.address("127.0.0.1:0")).await;
        app.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(app.message().await.1, "hello", "connection {number}");
        waiting.push(app);
    }
    let url = format!("http://{}/", upstream.address);
    assert_eq!(proxied(sidecar.proxy(), &url, &[]).await.status(), 200);
    assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);
}

#[tokio::test]
async fn if_every_connection_is_in_use_a_new_one_gets_503() {
    let metadata = Metadata::start().await;
    let upstream = Hostile::stalls().await;
    let route = format!("127.0.0.1:0=http://{}/,credential=none", upstream.address);
    let args = [
        &QUIET[..],
        &["--route", &route, "--max-connections", "1000"],
    ]
    .concat();
    let few = ["sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""];
    let sidecar = Sidecar::start_under(&few, &metadata, &args).await;
    let at = sidecar.address("127.0.0.1:0");
    let call = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut busy = Vec::new();
    let refused = loop {
        let mut app = Wire::open(at).await;
        app.send(call).await;
        tokio::select! {
            head = app.head() => break head,
            () = upstream.heard(busy.len() + 1) => busy.push(app),
        }
        assert!(busy.len() < 100);
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let told = field(&refused, "proxy-status").unwrap();
    assert!(told.contains("error=connection_limit_reached"), "{told}");
    assert!(busy.len() > 20, "{}", busy.len());
}

/// Some programs loop over all possible descriptors, or use `select`.
#[test]
fn the_soft_descriptor_limit_is_raised_except_for_the_child_of_exec() {
    let script = "ulimit -S -n 256; exec \"$0\" exec -- sh -c 'ulimit -S -n; ulimit -n; \
                  n=0; while grep -q \"files *256 \" /proc/$PPID/limits && [ $n -lt 1000 ]; do n=$((n + 1)); done; \
                  grep files /proc/$PPID/limits'";
    let done = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_sidentity")])
        .env("GCE_METADATA_HOST", "127.0.0.1:1")
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["256", "256"], "{said}");
    let limits: Vec<_> = lines[2].split_whitespace().collect();
    assert_ne!(limits[3], "256", "{said}");
    assert_eq!(limits[3], limits[4], "{said}");
}
