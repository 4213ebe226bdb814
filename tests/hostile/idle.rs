//! Connections that never send a complete head. Every listener closes them after thirty seconds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::observe::{Bounds, Observer};
use super::support::service::Service;
use super::wire::{HEADERS, PREFACE, frame, get, preface};
use super::{ALONE, started_under};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 200,
};

/// The thirty seconds, and a margin for a busy machine.
const CLOSED_AFTER: Duration = Duration::from_secs(45);

/// The name and the first bytes of a connection, and whether more bytes follow one by one.
type Beginning = (&'static str, Vec<u8>, bool);

/// Waits for the end of a connection that sends these bytes.
async fn closed(address: SocketAddr, (_, bytes, more): Beginning) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        let _ = writer.write_all(&bytes).await;
        while more && writer.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut sink = [0; 4096];
        while matches!(reader.read(&mut sink).await, Ok(1..)) {}
    };
    tokio::select! {
        () = write => {}
        () = read => {}
        () = tokio::time::sleep(CLOSED_AFTER) => {}
    }
    began.elapsed()
}

#[tokio::test]
async fn connections_without_a_complete_head_are_closed_by_every_listener() {
    let _alone = ALONE.lock().await;
    let service = Service::start().await;
    let mut args = service.flags();
    let more = [
        "--route",
        "127.0.0.1:0=https://svc.a.run.app",
        "--idle-timeout",
        "20s",
    ];
    args.extend(more.map(String::from));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (_metadata, sidecar) = started_under(&[], &args).await;
    let observer = Observer::of_both(&sidecar);
    let begun = frame(HEADERS, 1, 1, &get("a.example.com", "/", &[]));
    let beginnings: [Beginning; 7] = [
        ("nothing", Vec::new(), false),
        ("half a preface", PREFACE[..12].to_vec(), false),
        ("a preface without settings", PREFACE.to_vec(), false),
        ("a preface and settings", preface(), false),
        ("half a field block", [preface(), begun].concat(), false),
        ("half a head", b"GET / HTTP/1.1\r\nHost: lo".to_vec(), false),
        ("a head that comes byte by byte", b"GET /".to_vec(), true),
    ];
    let mut waiting = JoinSet::new();
    for listener in ["proxy", "admin", "127.0.0.1:0"] {
        for beginning in beginnings.clone() {
            let address = sidecar.address(listener);
            waiting.spawn(async move {
                let name = beginning.0;
                (listener, name, closed(address, beginning).await)
            });
        }
    }
    let mut open = Vec::new();
    while let Some(ended) = waiting.join_next().await {
        let (listener, name, took) = ended.unwrap();
        eprintln!("{listener}: {name}: closed after {took:?}");
        if took >= CLOSED_AFTER {
            open.push((listener, name));
        }
    }
    assert!(open.is_empty(), "still open: {open:#?}");
    observer.within("connections without a whole head", BOUNDS);
}
