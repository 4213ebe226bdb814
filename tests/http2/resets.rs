//! A reset of a stream is passed to the other side, at once and with the same reason.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::support::hostile::Hostile;
use super::support::streams::{app, open, reset, whole};
use super::support::upstream::soon;
use super::{HOST, counted, request, started};

#[tokio::test]
async fn an_app_that_cancels_before_the_response_resets_the_upstream_stream() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (_response, mut upload) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    upload.send_reset(Reason::CANCEL);
    assert_eq!(stream.reset().await, Reason::CANCEL);
    counted(&sidecar, "cancelled", 1).await;
}

#[tokio::test]
async fn an_app_that_closes_its_connection_resets_the_upstream_stream() {
    let (service, _metadata, sidecar) = started().await;
    let (connected, connection) =
        h2::client::handshake(TcpStream::connect(sidecar.proxy()).await.unwrap())
            .await
            .unwrap();
    let serving = tokio::spawn(connection);
    let (_first, _) = open(&connected, request("GET", "/"), true).await;
    let (_second, _) = open(&connected, request("POST", "/"), false).await;
    let mut streams = [service.next().await, service.next().await];
    let mut download = streams[0].begin(Response::new(()));
    download.send_data(Bytes::from("some"), false).unwrap();
    serving.abort();
    assert_eq!(reset(&mut download).await, Reason::CANCEL);
    assert_eq!(streams[1].reset().await, Reason::CANCEL);
    counted(&sidecar, "cancelled", 2).await;
}

#[tokio::test]
async fn an_app_that_cancels_a_download_stops_it_upstream() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (response, mut upload) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    let mut download = stream.begin(Response::new(()));
    download.send_data(Bytes::from("some"), false).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(
        soon(response.body_mut().data()).await.unwrap().unwrap(),
        "some"
    );
    upload.send_reset(Reason::CANCEL);
    assert_eq!(reset(&mut download).await, Reason::CANCEL);
    counted(&sidecar, "cancelled", 1).await;
}

/// For any reason of the app, a partial upload must not look like a complete one.
#[tokio::test]
async fn a_cancelled_upload_never_looks_complete_upstream() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let reasons = [
        Reason::CANCEL,
        Reason::NO_ERROR,
        Reason::INTERNAL_ERROR,
        Reason::ENHANCE_YOUR_CALM,
    ];
    for round in 0..10 {
        for reason in reasons {
            let (_response, mut upload) = open(&app, request("POST", "/"), false).await;
            upload.send_data(Bytes::from("half"), false).unwrap();
            let mut stream = service.next().await;
            assert_eq!(soon(stream.body.data()).await.unwrap().unwrap(), "half");
            upload.send_reset(reason);
            let ended = soon(stream.body.data()).await;
            let Some(Err(error)) = ended else {
                panic!("{reason:?} in round {round}: a clean end, {ended:?}");
            };
            assert!(error.is_reset(), "{error:?}");
        }
    }
}

/// The sidecar learns at the same time that the response is unwanted and why.
#[tokio::test]
async fn the_reset_code_of_a_cancelled_upload_reaches_the_upstream() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for _ in 0..100 {
        let (_response, mut upload) = open(&app, request("POST", "/"), false).await;
        upload.send_data(Bytes::from("half"), false).unwrap();
        let mut stream = service.next().await;
        assert_eq!(soon(stream.body.data()).await.unwrap().unwrap(), "half");
        upload.send_reset(Reason::ENHANCE_YOUR_CALM);
        assert_eq!(stream.reset().await, Reason::ENHANCE_YOUR_CALM);
    }
}

/// The response has begun, so the app waits only for its end.
#[tokio::test]
async fn an_upload_cancelled_during_the_response_is_reset() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let (response, mut upload) = open(&app, request("POST", "/"), false).await;
        upload.send_data(Bytes::from("half"), false).unwrap();
        let mut stream = service.next().await;
        let mut download = stream.begin(Response::new(()));
        download.send_data(Bytes::from("some"), false).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(
            soon(response.body_mut().data()).await.unwrap().unwrap(),
            "some"
        );
        assert_eq!(soon(stream.body.data()).await.unwrap().unwrap(), "half");
        upload.send_reset(reason);
        let ended = soon(stream.body.data()).await;
        assert!(matches!(ended, Some(Err(_))), "{reason:?}: {ended:?}");
        assert_eq!(reset(&mut download).await, Reason::CANCEL, "{reason:?}");
    }
}

#[tokio::test]
async fn a_truncated_response_never_looks_complete_to_the_app() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let reasons = [
        (Reason::CANCEL, Reason::CANCEL),
        (Reason::INTERNAL_ERROR, Reason::INTERNAL_ERROR),
        (Reason::ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
        // A reset with NO_ERROR means "stop sending". It is an error if the response is incomplete.
        (Reason::NO_ERROR, Reason::INTERNAL_ERROR),
    ];
    for (given, seen) in reasons {
        let (response, _) = open(&app, request("GET", "/"), true).await;
        let mut stream = service.next().await;
        let mut download = stream.begin(Response::new(()));
        download.send_data(Bytes::from("half"), false).unwrap();
        let mut response = soon(response).await.unwrap();
        let body = response.body_mut();
        assert_eq!(soon(body.data()).await.unwrap().unwrap(), "half");
        download.send_reset(given);
        let ended = soon(body.data()).await;
        let Some(Err(error)) = ended else {
            panic!("{given:?}: a clean end, {ended:?}");
        };
        assert_eq!(error.reason(), Some(seen), "{error:?}");
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
    }
    // The upstream caused the end, not the app.
    counted(&sidecar, "200", 4).await;
}

#[tokio::test]
async fn a_service_that_disconnects_midway_never_looks_complete() {
    let read = Arc::new(Notify::new());
    let was_read = Arc::clone(&read);
    let service = Hostile::start(move |stream, _| {
        let was_read = Arc::clone(&was_read);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut reply) = connection.accept().await.unwrap().unwrap();
            let mut download = reply.send_response(Response::new(()), false).unwrap();
            download.send_data(Bytes::from("half"), false).unwrap();
            tokio::select! {
                _ = connection.accept() => return,
                () = was_read.notified() => {}
            }
            // The connection ends with GOAWAY without an error.
            connection.abrupt_shutdown(Reason::NO_ERROR);
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let metadata = super::Metadata::start().await;
    let sidecar = super::Sidecar::start(&metadata, &["--upstream-http", "2"]).await;
    let app = app(sidecar.proxy()).await;
    let request = http::Request::get(format!("http://{}/", service.address)).body(());
    let (response, _) = open(&app, request.unwrap(), true).await;
    let mut response = soon(response).await.unwrap();
    assert_eq!(
        soon(response.body_mut().data()).await.unwrap().unwrap(),
        "half"
    );
    read.notify_one();
    whole(response.body_mut()).await.unwrap_err();
}

#[tokio::test]
async fn a_reset_before_the_response_is_an_error_of_the_sidecar() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (response, _) = open(&app, request("GET", "/"), true).await;
    service
        .next()
        .await
        .reply
        .send_reset(Reason::INTERNAL_ERROR);
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 502);
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(status.contains("connection_terminated"), "{status}");
}

#[tokio::test]
async fn an_http1_app_sees_a_truncated_response_as_truncated() {
    let (service, _metadata, sidecar) = started().await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let mut app = TcpStream::connect(sidecar.proxy()).await.unwrap();
        let head = format!("GET http://{HOST}/ HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        app.write_all(head.as_bytes()).await.unwrap();
        let mut stream = service.next().await;
        let mut download = stream.begin(Response::new(()));
        download.send_data(Bytes::from("half"), false).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"half\r\n") {
            assert_ne!(soon(app.read_buf(&mut seen)).await.unwrap(), 0);
        }
        download.send_reset(reason);
        let _ = soon(app.read_to_end(&mut seen)).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(!seen.ends_with("0\r\n\r\n"), "{reason:?}: {seen}");
    }
}

/// RFC 9113, 8.1: a response may be complete before the request. The app gets all of it, and is asked to stop sending.
#[tokio::test]
async fn an_early_response_is_complete_and_stops_the_upload() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for _ in 0..10 {
        let (response, mut upload) = open(&app, request("POST", "/"), false).await;
        upload.send_data(Bytes::from("half"), false).unwrap();
        let mut stream = service.next().await;
        let mut download = stream.begin(Response::builder().status(413).body(()).unwrap());
        download.send_data(Bytes::from("too large"), true).unwrap();
        // h2 then resets the stream without an error, once the response is sent.
        drop((stream, download));
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(whole(response.body_mut()).await.unwrap().0, "too large");
        assert_eq!(reset(&mut upload).await, Reason::NO_ERROR);
    }
}
