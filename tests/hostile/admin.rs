//! The admin port, which may be open to a network.

use std::time::Duration;

use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::wire::{PREFACE, get, preface, preface_without_window, requests};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 250,
};

#[tokio::test]
async fn unread_pages_on_the_admin_port() {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let mut flood = Flood::new();
    let requests = requests(200, &get("localhost", "/", &[]));
    let bytes = [preface_without_window(), requests].concat();
    flood.open(sidecar.admin(), 40, Reading::Nothing, bytes);
    flood.written(Duration::from_secs(5)).await;
    observer.probes(40).await;
    observer.within("admin flood", BOUNDS);
}

#[tokio::test]
async fn connections_to_the_admin_port_without_a_complete_request() {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let mut flood = Flood::new();
    for bytes in [
        &b""[..],
        &PREFACE[..PREFACE.len() / 2],
        &preface(),
        b"GET / HTTP/1.1\r\nHost: loc",
    ] {
        flood.open(sidecar.admin(), 40, Reading::Nothing, bytes);
    }
    flood.written(Duration::from_secs(5)).await;
    observer.probes(40).await;
    observer.within("admin, silent connections", BOUNDS);
}

#[tokio::test]
async fn unread_pipelined_pages_on_the_admin_port() {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&[]).await;
    let observer = Observer::of_both(&sidecar);
    let mut flood = Flood::new();
    let bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    flood.open(sidecar.admin(), 40, Reading::Nothing, bytes);
    flood.written(Duration::from_secs(5)).await;
    observer.probes(40).await;
    observer.within("admin, pipelined requests", BOUNDS);
}
