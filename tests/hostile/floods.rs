//! Floods of HTTP/2 frames and of connections.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::support::hostile::Hostile;
use super::support::sidecar::Sidecar;
use super::wire::{
    CONTINUATION, DATA, END_STREAM, HEADERS, LARGEST, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, get, headers, preface, streams,
};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 200,
};

const CONNECTIONS: usize = 8;
const FLOOD: Duration = Duration::from_secs(5);

/// Floods the forward proxy with connections that write these bytes, first with reading clients, then with clients that
/// do not read.
async fn flooded(scenario: &str, bytes: Vec<u8>) {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    flood(&sidecar, &bytes, &observer).await;
    observer.within(scenario, BOUNDS);
}

async fn flood(sidecar: &Sidecar, bytes: &[u8], observer: &Observer) {
    for reading in [Reading::All, Reading::Nothing] {
        let mut flood = Flood::new();
        flood.open(sidecar.proxy(), CONNECTIONS, reading, bytes);
        flood.written(FLOOD).await;
        observer.probes(6).await;
    }
}

/// Returns an HTTP/2 connection's bytes: the preface, then a repeated frame.
fn repeated(frame: &[u8], count: usize) -> Vec<u8> {
    [preface(), frame.repeat(count)].concat()
}

/// Returns requests and their resets, in bursts of this size.
fn resets(authority: &str, count: usize, burst: usize) -> Vec<u8> {
    let block = get(authority, "/", &[]);
    let mut bytes = preface();
    let numbers: Vec<_> = streams(count).collect();
    for burst in numbers.chunks(burst) {
        for stream in burst {
            bytes.extend(headers(*stream, END_STREAM, &block));
        }
        for stream in burst {
            bytes.extend(frame(RST_STREAM, 0, *stream, &8u32.to_be_bytes()));
        }
    }
    bytes
}

/// CVE-2023-44487.
#[tokio::test]
async fn streams_that_are_reset_at_once() {
    let _alone = ALONE.lock().await;
    let upstream = Hostile::stalls().await;
    let authority = upstream.address.to_string();
    for (scenario, burst) in [
        ("rapid reset", 1),
        ("rapid reset in bursts of 100", 100),
        ("rapid reset in bursts of 2,000", 2000),
    ] {
        let (_metadata, sidecar) = started(&[]).await;
        let observer = Observer::of_both(&sidecar);
        let bytes = resets(&authority, 10_000, burst);
        flood(&sidecar, &bytes, &observer).await;
        observer.within(scenario, BOUNDS);
    }
}

/// Bursts that are small enough not to end the connection.
#[tokio::test]
async fn streams_that_are_reset_a_few_at_a_time() {
    let _alone = ALONE.lock().await;
    let upstream = Hostile::stalls().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let bytes = resets(&upstream.address.to_string(), 500, 1);
    for _ in 0..3 {
        flood(&sidecar, &bytes, &observer).await;
    }
    observer.within("rapid reset, 500 at a time", BOUNDS);
}

#[tokio::test]
async fn field_blocks_that_never_end() {
    let field = [&[0, 1, b'x', 127, 0x81, 0x7e][..], &[b'a'; 16_256]].concat();
    for (scenario, part) in [
        ("CONTINUATION flood, large frames", &field[..]),
        ("CONTINUATION flood, small frames", &field[..1]),
        ("CONTINUATION flood, empty frames", &field[..0]),
    ] {
        let head = frame(HEADERS, END_STREAM, 1, &get("a.example.com", "/", &[]));
        let count = if part.len() > 1 { 500 } else { 50_000 };
        let continued = frame(CONTINUATION, 0, 1, part).repeat(count);
        flooded(scenario, [preface(), head, continued].concat()).await;
    }
}

#[tokio::test]
async fn settings_pings_and_other_frames_without_end() {
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(100));
    for (scenario, flood) in [
        ("empty SETTINGS flood", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS flood", settings),
        ("PING flood", frame(PING, 0, 0, &[0; 8])),
        ("PRIORITY flood", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
        (
            "WINDOW_UPDATE flood",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("flood of unknown frames", frame(0xfa, 0, 0, &[0; 100])),
    ] {
        flooded(scenario, repeated(&flood, 20_000)).await;
    }
}

#[tokio::test]
async fn empty_and_padded_data_without_end() {
    let _alone = ALONE.lock().await;
    let upstream = Hostile::stalls().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let open = headers(1, 0, &get(&upstream.address.to_string(), "/", &[]));
    for data in [
        frame(DATA, 0, 1, &[]).repeat(50_000),
        // Padded: one byte for the length, and no data.
        frame(
            DATA,
            8,
            1,
            &[255; 1].iter().copied().chain([0; 255]).collect::<Vec<_>>(),
        )
        .repeat(2_000),
        frame(DATA, 0, 1, &[0; LARGEST]).repeat(200),
    ] {
        let bytes = [preface(), open.clone(), data].concat();
        flood(&sidecar, &bytes, &observer).await;
    }
    observer.within("DATA floods", BOUNDS);
}

#[tokio::test]
async fn connections_that_come_and_go() {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let preface = preface();
    let beginnings = [&b""[..], b"GET / HT", &preface, b"\x16\x03\x01\x02"];
    for round in 0..500 {
        for (number, bytes) in beginnings.iter().enumerate() {
            let address = if number % 2 == 0 {
                sidecar.proxy()
            } else {
                sidecar.admin()
            };
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(bytes).await;
            if round % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        }
    }
    observer.probes(6).await;
    observer.within("connection churn", BOUNDS);
    let left = observer.figures().descriptors_now;
    assert!(left < 40, "{left} descriptors are left open");
}
