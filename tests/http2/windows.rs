//! Flow-control windows: the number of bytes in transit determines the throughput over a long path, so the tests
//! measure bytes.

use std::time::{Duration, Instant};

use http::Response;

use super::support::path::Path;
use super::support::streams::{Streams, app, app_with, open, pour, whole};
use super::support::upstream::soon;
use super::{beside, request};

const MIB: u64 = 1024 * 1024;

/// Reads all bytes, so that only the sidecar's windows limit the transfer.
fn greedy() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(64 * MIB as u32)
        .initial_connection_window_size(256 * MIB as u32);
    builder
}

#[tokio::test]
async fn a_download_has_more_than_a_megabyte_in_flight() {
    let service = Streams::start().await;
    let path = Path::to(service.address).await;
    let (_metadata, sidecar) = beside(&service, path.address, &[]).await;
    let app = app_with(sidecar.proxy(), &greedy()).await;
    let (response, _) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    let mut download = stream.begin(Response::new(()));
    let mut response = soon(response).await.unwrap();
    // The path is so long that no window update arrives.
    path.hold_up();
    let before = path.down();
    let pouring = tokio::spawn(async move { pour(&mut download, 8 * MIB as usize).await });
    path.came_down(before + MIB).await;
    path.release();
    let (body, _) = whole(response.body_mut()).await.unwrap();
    assert_eq!(body.len() as u64, 8 * MIB);
    pouring.await.unwrap().unwrap();
}

/// With the windows of RFC 9113, 64 KiB, this would take 512 times 50 ms, and the upload too.
#[tokio::test]
async fn thirty_two_megabytes_each_way_do_not_stall_at_50_ms_of_latency() {
    const SIZE: usize = 32 * MIB as usize;
    let service = Streams::with(|builder| {
        builder
            .initial_window_size(64 * MIB as u32)
            .initial_connection_window_size(256 * MIB as u32);
    })
    .await;
    let way = Path::long(service.address, Duration::from_millis(25)).await;
    let (_metadata, sidecar) = beside(&service, way, &[]).await;
    let app = app_with(sidecar.proxy(), &greedy()).await;
    let (response, mut upload) = open(&app, request("POST", "/"), false).await;
    let mut stream = service.next().await;
    let mut download = stream.begin(Response::new(()));
    let began = Instant::now();
    let down = tokio::spawn(async move { pour(&mut download, SIZE).await });
    let up = tokio::spawn(async move { pour(&mut upload, SIZE).await });
    let mut response = soon(response).await.unwrap();
    let (came_down, went_up) = tokio::join!(whole(response.body_mut()), whole(&mut stream.body));
    assert_eq!(came_down.unwrap().0.len(), SIZE);
    assert_eq!(went_up.unwrap().0.len(), SIZE);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    down.await.unwrap().unwrap();
    up.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upload_has_about_a_megabyte_in_flight() {
    let service = Streams::with(|builder| {
        builder
            .initial_window_size(64 * MIB as u32)
            .initial_connection_window_size(256 * MIB as u32);
    })
    .await;
    let (_metadata, sidecar) = beside(&service, service.address, &[]).await;
    let path = Path::to(sidecar.proxy()).await;
    let app = app(path.address).await;
    // After a first call both sides know each other's settings.
    let (first, _) = open(&app, request("GET", "/"), true).await;
    service.next().await.answer("hello");
    whole(soon(first).await.unwrap().body_mut()).await.unwrap();

    let (_response, mut upload) = open(&app, request("POST", "/"), false).await;
    let mut stream = service.next().await;
    path.hold_down();
    let before = path.up();
    let pouring = tokio::spawn(async move { pour(&mut upload, 8 * MIB as usize).await });
    path.went_up(before + MIB - 64 * 1024).await;
    path.release();
    let (body, _) = whole(&mut stream.body).await.unwrap();
    assert_eq!(body.len() as u64, 8 * MIB);
    pouring.await.unwrap().unwrap();
}

#[tokio::test]
async fn ten_unread_uploads_delay_no_other() {
    let service = Streams::with(|builder| {
        builder.initial_connection_window_size(256 * MIB as u32);
    })
    .await;
    let (_metadata, sidecar) = beside(&service, service.address, &[]).await;
    let path = Path::to(sidecar.proxy()).await;
    let app = app(path.address).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let (response, mut upload) = open(&app, request("POST", "/stalled"), false).await;
        let stream = service.next().await;
        let pouring = tokio::spawn(async move { pour(&mut upload, 64 * MIB as usize).await });
        stalled.push((response, stream, pouring));
    }
    path.went_up(10 * MIB).await;
    let (response, mut upload) = open(&app, request("POST", "/"), false).await;
    let mut stream = service.next().await;
    let pouring = tokio::spawn(async move { pour(&mut upload, MIB as usize).await });
    let (body, _) = whole(&mut stream.body).await.unwrap();
    assert_eq!(body.len() as u64, MIB);
    pouring.await.unwrap().unwrap();
    stream.answer("thanks");
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn twelve_unread_downloads_delay_no_other() {
    let service = Streams::start().await;
    let path = Path::to(service.address).await;
    let (_metadata, sidecar) = beside(&service, path.address, &[]).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(256 * MIB as u32);
    let app = app_with(sidecar.proxy(), &builder).await;
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let (response, _) = open(&app, request("GET", "/stalled"), true).await;
        let mut stream = service.next().await;
        let mut download = stream.begin(Response::new(()));
        let pouring = tokio::spawn(async move { pour(&mut download, 64 * MIB as usize).await });
        stalled.push((soon(response).await.unwrap(), pouring));
    }
    // Every stream has filled its window.
    path.came_down(12 * 2 * MIB).await;
    let (response, _) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    let mut download = stream.begin(Response::new(()));
    let pouring = tokio::spawn(async move { pour(&mut download, MIB as usize).await });
    let (body, _) = whole(soon(response).await.unwrap().body_mut())
        .await
        .unwrap();
    assert_eq!(body.len() as u64, MIB);
    pouring.await.unwrap().unwrap();
    assert_eq!(service.connections(), 1);
}
