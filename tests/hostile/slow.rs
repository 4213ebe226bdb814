//! Callers who send byte by byte.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::observe::{Bounds, Observer};
use super::support::hostile::Hostile;
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 700,
};

/// Opens 200 connections that each send a byte every twenty milliseconds.
async fn dripped(scenario: &str, bytes: String) {
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let mut dripping = JoinSet::new();
    for _ in 0..200 {
        let (address, bytes) = (sidecar.proxy(), bytes.clone());
        dripping.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for byte in bytes.bytes().chain(std::iter::repeat(b'a')) {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    observer.probes(60).await;
    observer.within(scenario, BOUNDS);
}

#[tokio::test]
async fn heads_that_come_byte_by_byte() {
    let _alone = ALONE.lock().await;
    dripped("200 slow heads", "GET /".into()).await;
}

#[tokio::test]
async fn bodies_that_come_byte_by_byte() {
    let _alone = ALONE.lock().await;
    let upstream = Hostile::stalls().await;
    let at = upstream.address;
    let head =
        format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 1000000\r\n\r\n");
    dripped("200 slow bodies", head).await;
}
