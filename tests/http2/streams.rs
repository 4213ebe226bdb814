//! Many streams, and many resets.

use std::collections::HashMap;

use bytes::Bytes;
use h2::Reason;
use http::Response;

use super::frames::{GOAWAY, RST_STREAM, Raw, frame, get};
use super::support::path::Path;
use super::support::streams::{Streams, app, open, reset, whole};
use super::support::upstream::soon;
use super::support::wire::Wire;
use super::{HOST, beside, counted, metric, request, started};

#[tokio::test]
async fn a_thousand_streams_of_one_app_connection_are_open_upstream_at_once() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let mut responses = Vec::new();
    for _ in 0..1000 {
        responses.push(open(&app, request("GET", "/"), true).await.0);
    }
    let mut streams = Vec::new();
    let mut carried: HashMap<usize, usize> = HashMap::new();
    for _ in 0..1000 {
        let stream = service.next().await;
        *carried.entry(stream.connection).or_default() += 1;
        streams.push(stream);
    }
    assert!(carried.values().all(|count| *count <= 100), "{carried:?}");
    assert_eq!(service.connections(), 10);
    for stream in streams {
        stream.answer("hello");
    }
    for response in responses {
        let mut response = soon(response).await.unwrap();
        assert_eq!(whole(response.body_mut()).await.unwrap().0, "hello");
    }
}

#[tokio::test]
async fn the_limit_is_reported_on_a_single_connection() {
    let service = Streams::start().await;
    let flags = ["--max-connections", "20"];
    let (_metadata, sidecar) = beside(&service, service.address, &flags).await;
    let app = app(sidecar.proxy()).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(open(&app, request("GET", "/"), true).await.0);
    }
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(service.next().await);
    }
    let (over, _) = open(&app, request("GET", "/"), true).await;
    assert_eq!(soon(over).await.unwrap().status(), 503);
    for stream in streams {
        stream.answer("hello");
    }
    for response in held {
        assert_eq!(soon(response).await.unwrap().status(), 200);
    }
}

/// All frames are in one write, so that no stream is processed before its reset.
#[tokio::test]
async fn a_burst_of_cancelled_calls_keeps_the_connection() {
    let (service, _metadata, sidecar) = started().await;
    let mut burst = Vec::new();
    for number in 0..1000 {
        let stream = number * 2 + 1;
        burst.extend(get(stream, "/given-up"));
        let reason = u32::from(Reason::CANCEL).to_be_bytes();
        burst.extend(frame(RST_STREAM, 0, stream, &reason));
    }
    burst.extend(get(2001, "/kept"));
    let mut app = Raw::open(sidecar.proxy()).await;
    app.write(&burst).await;
    while service.next().await.head.uri.path() != "/kept" {}
}

/// Frames that an upstream sends before it receives a reset are not its fault, in any number.
#[tokio::test]
async fn thousands_of_cancelled_downloads_keep_the_connection() {
    let service = Streams::start().await;
    let path = Path::to(service.address).await;
    let (_metadata, sidecar) = beside(&service, path.address, &[]).await;
    let app = app(sidecar.proxy()).await;
    let (long, _) = open(&app, request("GET", "/long"), true).await;
    let long_stream = service.next().await;
    for round in 1..=25 {
        let mut calls = Vec::new();
        for _ in 0..99 {
            calls.push(open(&app, request("GET", "/"), true).await);
        }
        let mut downloads = Vec::new();
        for _ in 0..99 {
            let mut stream = service.next().await;
            let download = stream.begin(Response::new(()));
            downloads.push((stream, download));
        }
        let mut uploads = Vec::new();
        for (response, upload) in calls {
            uploads.push((soon(response).await.unwrap(), upload));
        }
        path.hold_up();
        for (_, upload) in &mut uploads {
            upload.send_reset(Reason::CANCEL);
        }
        counted(&sidecar, "cancelled", round * 99).await;
        let before = path.down();
        for (_, download) in &mut downloads {
            download.send_data(Bytes::from("late"), false).unwrap();
        }
        path.came_down(before + 99 * 4).await;
        path.release();
        for (_, download) in &mut downloads {
            assert_eq!(reset(download).await, Reason::CANCEL);
        }
    }
    long_stream.answer("still here");
    let mut long = soon(long).await.unwrap();
    assert_eq!(whole(long.body_mut()).await.unwrap().0, "still here");
    assert_eq!(service.connections(), 1);
}

/// HTTP/2 Rapid Reset (CVE-2023-44487).
#[tokio::test]
async fn thousands_of_calls_cancelled_at_once_end_the_connection() {
    let (service, _metadata, sidecar) = started().await;
    let mut burst = Vec::new();
    for stream in (1..6000).step_by(2) {
        burst.extend(get(stream, "/given-up"));
        let reason = u32::from(Reason::CANCEL).to_be_bytes();
        burst.extend(frame(RST_STREAM, 0, stream, &reason));
    }
    let mut rapid = Raw::open(sidecar.proxy()).await;
    rapid.write(&burst).await;
    // If a connection is closed with unread bytes, its reset may overtake the GOAWAY.
    while let Some(told) = rapid.next().await {
        if told.kind == GOAWAY {
            let reason = u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes();
            assert_eq!(told.payload[4..8], reason);
        }
    }
    let counted = "sidentity_proxy_errors_total{error=\"connection_limit_reached\"} 1";
    metric(&sidecar, counted).await;
    sidecar
        .logged(|line| {
            let detail = line["detail"].as_str().unwrap_or_default();
            detail.contains("it reset too many streams")
        })
        .await;
    // The other streams continue.
    let app = app(sidecar.proxy()).await;
    let (response, _) = open(&app, request("GET", "/kept"), true).await;
    loop {
        let stream = service.next().await;
        if stream.head.uri.path() == "/kept" {
            stream.answer("hello");
            break;
        }
    }
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

/// Peers close a connection with many small unread DATA frames, and other calls on it fail. This service only counts
/// the frames.
#[tokio::test]
async fn an_upload_in_one_byte_chunks_leaves_in_larger_frames() {
    const CHUNKS: usize = 20_000;
    let service = Streams::with(|settings| {
        settings.data_frame_budget(usize::MAX);
    })
    .await;
    // Two connections of an app share an upstream connection only if the same worker serves them.
    let (_metadata, sidecar) = beside(&service, service.address, &["--workers", "1"]).await;
    let app = app(sidecar.proxy()).await;
    let (held, _) = open(&app, request("GET", "/held"), true).await;
    let kept = service.next().await;
    let mut uploading = Wire::open(sidecar.proxy()).await;
    let head = format!(
        "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    uploading
        .send(head + &"1\r\na\r\n".repeat(CHUNKS) + "0\r\n\r\n")
        .await;
    let mut upload = service.next().await;
    assert_eq!(upload.connection, kept.connection);
    let (mut bytes, mut frames) = (0, 0);
    while let Some(data) = soon(upload.body.data()).await {
        bytes += data.unwrap().len();
        frames += 1;
    }
    assert_eq!(bytes, CHUNKS);
    assert!(frames < CHUNKS / 10, "{frames} frames");
    upload.answer("taken");
    assert!(uploading.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(uploading.chunked().await.0, "taken");
    kept.answer("hello");
    assert_eq!(soon(held).await.unwrap().status(), 200);
}
