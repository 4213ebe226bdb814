//! Requests that the upstream reports as unprocessed, from the view of an app (RFC 9113, 8.7).

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::support::streams::{app, open};
use super::support::upstream::soon;
use super::support::wire::Wire;
use super::{HOST, request, started};

fn grpc(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    request
}

#[tokio::test]
async fn a_unary_call_that_the_server_first_refuses_succeeds() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (response, mut upload) = open(&app, grpc("/svc/Unary"), false).await;
    upload
        .send_data(Bytes::from_static(b"\0\0\0\0\x01m"), true)
        .unwrap();
    let mut first = service.next().await;
    first.reply.send_reset(Reason::REFUSED_STREAM);
    let mut second = service.next().await;
    assert_eq!(second.head.uri.path(), "/svc/Unary");
    assert_eq!(second.head.headers, first.head.headers);
    let message = soon(second.body.data()).await.unwrap().unwrap();
    assert_eq!(message, &b"\0\0\0\0\x01m"[..]);
    assert!(soon(second.body.data()).await.is_none());
    let mut answer = second.begin(Response::new(()));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    answer.send_trailers(trailers).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    let trailers = soon(response.into_body().trailers()).await.unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_app_whose_refused_upload_cannot_be_resent_gets_refused_stream() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for request in [request("POST", "/big"), grpc("/svc/Big")] {
        let (response, mut upload) = open(&app, request, false).await;
        upload
            .send_data(Bytes::from(vec![b'x'; 65_000]), false)
            .unwrap();
        let mut stream = service.next().await;
        let mut read = 0;
        while read < 65_000 {
            let chunk = soon(stream.body.data()).await.unwrap().unwrap();
            let _ = stream.body.flow_control().release_capacity(chunk.len());
            read += chunk.len();
        }
        upload
            .send_data(Bytes::from(vec![b'x'; 1_000]), false)
            .unwrap();
        while read < 66_000 {
            read += soon(stream.body.data()).await.unwrap().unwrap().len();
        }
        stream.reply.send_reset(Reason::REFUSED_STREAM);
        let error = soon(response).await.unwrap_err();
        assert!(error.is_reset(), "{error:?}");
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    }
    // HTTP/1.1 has no such signal.
    let mut wire = Wire::open(sidecar.proxy()).await;
    let head = format!("POST http://{HOST}/big HTTP/1.1\r\nHost: {HOST}\r\n");
    wire.send(format!("{head}Content-Length: 70000\r\n\r\n"))
        .await;
    let mut stream = service.next().await;
    wire.send(vec![b'x'; 70_000]).await;
    stream.reply.send_reset(Reason::REFUSED_STREAM);
    let (head, _) = wire.message().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

/// The table "Errors" of the gRPC over HTTP/2 specification.
#[tokio::test]
async fn a_reset_before_the_head_maps_to_a_grpc_status() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    for (reason, status) in [
        (Reason::NO_ERROR, "13"),
        (Reason::PROTOCOL_ERROR, "13"),
        (Reason::INTERNAL_ERROR, "13"),
        (Reason::FLOW_CONTROL_ERROR, "13"),
        (Reason::SETTINGS_TIMEOUT, "13"),
        (Reason::STREAM_CLOSED, "13"),
        (Reason::FRAME_SIZE_ERROR, "13"),
        (Reason::CANCEL, "1"),
        (Reason::COMPRESSION_ERROR, "13"),
        (Reason::CONNECT_ERROR, "13"),
        (Reason::ENHANCE_YOUR_CALM, "8"),
        (Reason::INADEQUATE_SECURITY, "7"),
        (Reason::HTTP_1_1_REQUIRED, "13"),
        (Reason::from(0x77), "13"),
        // The request is always refused, so it is sent three times.
        (Reason::REFUSED_STREAM, "14"),
    ] {
        let (response, mut upload) = open(&app, grpc("/svc/Unary"), false).await;
        upload.send_data(Bytes::from_static(b"m"), true).unwrap();
        let tries = if reason == Reason::REFUSED_STREAM {
            3
        } else {
            1
        };
        for _ in 0..tries {
            service.next().await.reply.send_reset(reason);
        }
        let response = soon(response).await.unwrap();
        assert_eq!(response.status(), 200, "{reason:?}");
        assert_eq!(response.headers()["grpc-status"], status, "{reason:?}");
        let named = response.headers()["proxy-status"].to_str().unwrap();
        assert!(named.starts_with("sidentity; error="), "{named}");
    }
}
