//! Callers without the proxy's password.

use std::time::Duration;

use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::wire::{PREFACE, get, preface_without_window, requests};
use super::{ALONE, started};

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 700,
};

/// `user:password`.
const AUTHORIZED: &str = "Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n";

/// Floods a proxy that requires a password, while an authenticated caller makes calls.
async fn flooded(scenario: &str, count: usize, bytes: Vec<u8>) {
    let _alone = ALONE.lock().await;
    let (_metadata, sidecar) = started(&["--proxy-auth", "user:password"]).await;
    let observer = Observer::of_proxy(&sidecar, AUTHORIZED);
    let mut flood = Flood::new();
    flood.open(sidecar.proxy(), count, Reading::Nothing, bytes);
    flood.written(Duration::from_secs(5)).await;
    observer.probes(20).await;
    observer.within(scenario, BOUNDS);
}

#[tokio::test]
async fn thousands_of_unauthenticated_streams_without_a_window() {
    let requests = requests(4500, &get("api.example.com", "/", &[]));
    let bytes = [preface_without_window(), requests].concat();
    flooded("unauthenticated h2 flood", 2, bytes).await;
}

#[tokio::test]
async fn unauthenticated_requests_with_unread_responses() {
    let bytes = b"GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n".repeat(2000);
    flooded("unauthenticated HTTP/1.1 flood", 100, bytes).await;
}

#[tokio::test]
async fn silent_unauthenticated_connections() {
    flooded("silent connections", 300, Vec::new()).await;
    flooded("half prefaces", 300, PREFACE[..9].to_vec()).await;
}
