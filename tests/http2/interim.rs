//! Interim responses (1xx) of an upstream, a few and without end.

use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, Response};

use super::support::streams::{Stream, app, open, whole};
use super::support::upstream::soon;
use super::{metric, request, started};

/// Returns 103 with a field of this size.
fn hints(size: usize) -> Response<()> {
    let mut hints = Response::new(());
    *hints.status_mut() = http::StatusCode::EARLY_HINTS;
    let value = HeaderValue::from_str(&"v".repeat(size)).unwrap();
    hints.headers_mut().insert("link", value);
    hints
}

/// Sends interim responses until the peer ends the stream or the connection; false if it never does.
async fn flood(mut stream: Stream, size: usize) -> bool {
    for _ in 0..100_000 {
        let ended = poll_fn(|cx| Poll::Ready(stream.reply.poll_reset(cx).is_ready())).await;
        if ended || stream.reply.send_informational(hints(size)).is_err() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn endless_interim_responses_are_502_and_take_no_memory() {
    for (path, size) in [("/small", 10), ("/large", 15_000)] {
        let (service, _metadata, sidecar) = started().await;
        let app = app(sidecar.proxy()).await;
        let before = sidecar.peak_memory();
        let mut calls = Vec::new();
        let mut floods = tokio::task::JoinSet::new();
        for _ in 0..4 {
            // A request with a body is not sent a second time.
            let (response, mut body) = open(&app, request("POST", path), false).await;
            body.send_data("x".into(), true).unwrap();
            calls.push(response);
        }
        let mut streams = Vec::new();
        while streams.len() < 4 {
            streams.push(service.next().await);
        }
        for stream in streams {
            floods.spawn(flood(stream, size));
        }
        for call in calls {
            let mut response = soon(call).await.unwrap();
            assert_eq!(response.status(), 502, "{path}");
            let told = response.headers()["proxy-status"].to_str().unwrap();
            assert!(
                told.starts_with("sidentity; error=http_protocol_error"),
                "{told}"
            );
            assert!(told.contains("interim"), "{told}");
            whole(response.body_mut()).await.unwrap();
        }
        while let Some(stopped) = floods.join_next().await {
            assert!(stopped.unwrap(), "{path}: the stream was not stopped");
        }
        let peak = sidecar.peak_memory();
        assert!(peak < 64 * 1024, "{path}: {peak} KiB, {before} before");
        metric(
            &sidecar,
            "sidentity_proxy_errors_total{error=\"http_protocol_error\"} 4",
        )
        .await;

        // The next call succeeds, on another connection.
        let (response, _) = open(&app, request("GET", "/next"), true).await;
        service.next().await.answer("next");
        assert_eq!(soon(response).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn thirty_two_interim_responses_pass_before_the_final_one() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for (status, count) in [(200, 32), (201, 32), (200, 0), (403, 1)] {
        let (response, _) = open(&app, request("GET", "/"), true).await;
        let mut stream = service.next().await;
        for _ in 0..count {
            stream.reply.send_informational(hints(100)).unwrap();
        }
        let mut answer = Response::new(());
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let mut body = stream.begin(answer);
        body.send_data("data".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        body.send_trailers(trailers).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.status(), status);
        let (body, trailers) = whole(response.body_mut()).await.unwrap();
        assert_eq!((&body[..], trailers.is_some()), (&b"data"[..], true));
    }
    assert_eq!(service.connections(), 1);
}

/// The flood ends only its own call. The connection and its other streams continue.
#[tokio::test]
async fn a_flood_of_interim_responses_harms_no_other_call() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for (round, size) in [(1, 10), (2, 3000), (3, 15_000)] {
        let (get, _) = open(&app, request("GET", "/get"), true).await;
        let get_waits = service.next().await;
        let (post, mut body) = open(&app, request("POST", "/post"), false).await;
        let post_waits = service.next().await;
        let (download, _) = open(&app, request("GET", "/download"), true).await;
        let mut half = service.next().await.begin(Response::new(()));
        half.send_data("one ".into(), false).unwrap();
        let mut download = soon(download).await.unwrap();
        let (guilty, _) = open(&app, request("GET", "/guilty"), true).await;
        let floods = service.next().await;
        assert_eq!(floods.connection, get_waits.connection);
        assert!(flood(floods, size).await);
        let guilty = soon(guilty).await.unwrap();
        assert_eq!(guilty.status(), 502);
        let told = guilty.headers()["proxy-status"].to_str().unwrap();
        assert!(told.contains("interim"), "{told}");

        get_waits.answer("innocent");
        assert_eq!(soon(get).await.unwrap().status(), 200);
        body.send_data("x".into(), true).unwrap();
        post_waits.answer("innocent");
        assert_eq!(soon(post).await.unwrap().status(), 200);
        half.send_data("two".into(), true).unwrap();
        let (body, _) = whole(download.body_mut()).await.unwrap();
        assert_eq!(body, "one two");
        assert_eq!(service.connections(), 1, "round {round}");
    }
}

#[tokio::test]
async fn thirty_three_interim_responses_are_502() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for status in [200, 204, 201, 503] {
        let (response, _) = open(&app, request("GET", "/"), true).await;
        let mut stream = service.next().await;
        for _ in 0..33 {
            stream.reply.send_informational(hints(100)).unwrap();
        }
        let mut answer = Response::new(());
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        // The stream may already have been reset.
        if let Ok(mut body) = stream.reply.send_response(answer, false) {
            let _ = body.send_data("data".into(), true);
        }
        assert_eq!(soon(response).await.unwrap().status(), 502, "{status}");
    }
}
