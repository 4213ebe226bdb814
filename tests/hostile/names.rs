//! A name server that does not answer for one zone.
//!
//! The sidecar runs in a mount namespace with its own `resolv.conf`, which requires root.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::observe::{Bounds, Observer};
use super::support::app::try_send;
use super::support::hostile::{HELLO, Hostile};
use super::{ALONE, started_under};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 1500,
};

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 53, 77);

/// Only the sidecar sees this file.
const RESOLVED_BY: &str = "mount --bind \"$0\" \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"";

/// Answers 127.0.0.1 for names that begin with `new`, and nothing for others.
async fn name_server() {
    let address = SocketAddr::from((SERVER, 53));
    let socket = UdpSocket::bind(address)
        .await
        .unwrap_or_else(|error| panic!("{address}: {error}: this test needs root"));
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            if let Some(answer) = answer(&question[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
}

/// Returns an answer (RFC 1035, section 4): the header, the question, and one A record. It has no record for a question
/// of another type.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name = question.get(12..)?;
    if !name.get(1..)?.starts_with(b"new") {
        return None;
    }
    let end = 12 + name.iter().position(|byte| *byte == 0)? + 5;
    let is_a = question.get(end - 3)? == &1;
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question.get(12..end)?);
    if is_a {
        // The name as a pointer, A, IN, a TTL of 60 s, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// Returns the status of a call and its duration.
async fn call(proxy: SocketAddr, host: &str, port: u16) -> (u16, Duration) {
    let request = Request::get(format!("http://{host}:{port}/"))
        .header("host", format!("{host}:{port}"))
        .body(Bytes::new())
        .unwrap();
    let began = Instant::now();
    let status = match try_send(proxy, request).await {
        Ok(answer) => answer.status().as_u16(),
        Err(_) => 0,
    };
    (status, began.elapsed())
}

#[tokio::test]
async fn new_hosts_resolve_while_640_lookups_hang() {
    let _alone = ALONE.lock().await;
    name_server().await;
    let upstream = Hostile::always(HELLO).await;
    let port = upstream.address.port();
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {SERVER}\n")).unwrap();
    let resolver = resolver.display().to_string();
    let program = [
        "/usr/bin/unshare",
        "-m",
        "/bin/sh",
        "-c",
        RESOLVED_BY,
        &resolver,
    ];
    let rule = ["--rule", "new-granted.test=access,plaintext=allow"];
    let (_metadata, sidecar) = started_under(&program, &rule).await;
    let observer = Observer::of_both(&sidecar);
    let proxy = sidecar.proxy();
    assert_eq!(call(proxy, "new-first.test", port).await.0, 200);

    let mut hanging = JoinSet::new();
    for number in 0..640 {
        let host = format!("host-{number}.dead.test");
        hanging.spawn(async move { call(proxy, &host, 80).await });
    }
    observer.probes(10).await;
    let granted = call(proxy, "new-granted.test", port);
    let plain = call(proxy, "new-plain.test", port);
    let (granted, plain) = tokio::join!(granted, plain);
    while let Some(ended) = hanging.join_next().await {
        assert_eq!(ended.unwrap().0, 504);
    }
    let later = call(proxy, "new-later.test", port).await;
    eprintln!("640 hanging lookups: with a token {granted:?}, without {plain:?}, later {later:?}");
    for (status, took) in [granted, plain, later] {
        assert_eq!(status, 200, "{granted:?} {plain:?} {later:?}");
        assert!(
            took < Duration::from_secs(5),
            "{granted:?} {plain:?} {later:?}"
        );
    }
    observer.within("640 hanging lookups", BOUNDS);
}
