//! A peer that does not read must not fill the sidecar's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::Response;

use super::support::streams::{app, open, pour};
use super::support::upstream::soon;
use super::support::wire::Wire;
use super::{HOST, request, started};

const SIZE: usize = 200 * 1024 * 1024;
const PART: usize = 64 * 1024;

/// Sends [`SIZE`] bytes and reports the number of bytes sent.
fn pouring(mut stream: SendStream<Bytes>) -> Arc<AtomicUsize> {
    let sent = Arc::<AtomicUsize>::default();
    let count = sent.clone();
    tokio::spawn(async move {
        for _ in 0..SIZE / PART - 1 {
            pour_part(&mut stream).await;
            count.fetch_add(PART, Ordering::Relaxed);
        }
        pour(&mut stream, PART).await.unwrap();
        count.fetch_add(PART, Ordering::Relaxed);
    });
    sent
}

/// Returns a frame of data that is not the last.
async fn pour_part(stream: &mut SendStream<Bytes>) {
    let mut left = PART;
    while left > 0 {
        stream.reserve_capacity(left);
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let length = room.unwrap().unwrap().min(left);
        left -= length;
        stream
            .send_data(Bytes::from(vec![0; length]), false)
            .unwrap();
    }
}

/// Waits until a sender makes no progress. Only a wait can show that nothing happens.
async fn stuck(sent: &AtomicUsize) -> usize {
    loop {
        let before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && sent.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}

async fn drain(body: &mut h2::RecvStream) -> usize {
    let mut received = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        received += chunk.len();
    }
    received
}

#[tokio::test]
async fn two_hundred_unread_megabytes_each_way_use_less_than_64_mib() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (down, _) = open(&app, request("GET", "/down"), true).await;
    let mut down_stream = service.next().await;
    let (up, upload) = open(&app, request("POST", "/up"), false).await;
    let mut up_stream = service.next().await;
    let downloaded = pouring(down_stream.begin(Response::new(())));
    let uploaded = pouring(upload);
    let mut down = soon(down).await.unwrap();

    for sent in [&downloaded, &uploaded] {
        let under_way = soon(stuck(sent)).await;
        assert!(under_way < 8 * 1024 * 1024, "{under_way} bytes under way");
    }
    let peak = sidecar.peak_memory();
    assert!(peak < 64 * 1024, "{peak} KiB while the client did not read");

    assert_eq!(drain(down.body_mut()).await, SIZE);
    assert_eq!(drain(&mut up_stream.body).await, SIZE);
    up_stream.answer("thanks");
    assert_eq!(soon(up).await.unwrap().status(), 200);
    let peak = sidecar.peak_memory();
    assert!(peak < 64 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn large_heads_are_not_kept_by_the_connection_to_the_upstream() {
    let (service, _metadata, sidecar) = started().await;
    let padding = "a".repeat(60_000);
    let call = async |number: u32| {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(format!(
            "GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nX-Number: {number}\r\nX-Padding: {padding}\r\n\r\n"
        ))
        .await;
        service.next().await.answer("ok");
        app.head().await;
        assert_eq!(app.chunked().await.0, "ok");
    };
    for number in 0..5 {
        call(number).await;
    }
    let before = sidecar.peak_memory();
    for number in 5..125 {
        call(number).await;
    }
    // Each of these heads puts `X-Number` in the HPACK table.
    let grown = sidecar.peak_memory() - before;
    assert!(grown < 3 * 1024, "{grown} KiB");
}
