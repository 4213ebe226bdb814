//! Large and unusual heads and trailers.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::support::streams::{app, app_with, open, whole};
use super::support::upstream::soon;
use super::{request, started};

/// Almost the limit of 256 KiB, in fields of 15 KiB.
fn large() -> HeaderMap {
    let value = HeaderValue::from_str(&"v".repeat(15 * 1024)).unwrap();
    (0..16)
        .map(|number| {
            let name = http::HeaderName::try_from(format!("x-large-{number}"));
            (name.unwrap(), value.clone())
        })
        .collect()
}

fn assert_large(headers: &HeaderMap) {
    for (name, value) in large() {
        assert_eq!(headers.get(name.unwrap()), Some(&value));
    }
}

#[tokio::test]
async fn header_lists_of_240_kib_pass_everywhere() {
    let (service, _metadata, sidecar) = started().await;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(1024 * 1024);
    let app = app_with(sidecar.proxy(), &builder).await;
    let mut sent = request("POST", "/");
    sent.headers_mut().extend(large());
    let (response, mut upload) = open(&app, sent, false).await;
    upload.send_data(Bytes::from("up"), false).unwrap();
    upload.send_trailers(large()).unwrap();

    let mut stream = service.next().await;
    assert_large(&stream.head.headers);
    let (body, trailers) = whole(&mut stream.body).await.unwrap();
    assert_eq!(body, "up");
    assert_large(&trailers.unwrap());
    let mut answer = Response::new(());
    answer.headers_mut().extend(large());
    let mut download = stream.begin(answer);
    download.send_data(Bytes::from("down"), false).unwrap();
    download.send_trailers(large()).unwrap();

    let mut response = soon(response).await.unwrap();
    assert_large(response.headers());
    let (body, trailers) = whole(response.body_mut()).await.unwrap();
    assert_eq!(body, "down");
    assert_large(&trailers.unwrap());
}

#[tokio::test]
async fn a_head_over_the_limit_fails_only_its_own_stream() {
    let (service, _metadata, sidecar) = started().await;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(1024 * 1024);
    let app = app_with(sidecar.proxy(), &builder).await;
    let (held, _) = open(&app, request("GET", "/held"), true).await;
    let held_stream = service.next().await;

    let mut sent = request("GET", "/");
    sent.headers_mut().extend(large());
    sent.headers_mut().insert(
        "x-more",
        HeaderValue::from_str(&"v".repeat(40_000)).unwrap(),
    );
    let (response, _) = open(&app, sent, true).await;
    assert_eq!(soon(response).await.unwrap().status(), 431);

    let (response, _) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    let mut answer = Response::new(());
    answer.headers_mut().extend(large());
    answer.headers_mut().insert(
        "x-more",
        HeaderValue::from_str(&"v".repeat(40_000)).unwrap(),
    );
    stream.begin(answer);
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 502);
    let proxy_status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(
        proxy_status.contains("http_protocol_error"),
        "{proxy_status}"
    );

    held_stream.answer("held");
    let mut held = soon(held).await.unwrap();
    assert_eq!(whole(held.body_mut()).await.unwrap().0, "held");
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn trailer_and_te_fields_are_passed_on() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let mut sent = request("GET", "/");
    sent.headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let (response, _) = open(&app, sent, true).await;
    let mut stream = service.next().await;
    assert_eq!(stream.head.headers["te"], "trailers");
    assert_eq!(stream.head.uri, "https://svc.a.run.app/");
    for absent in ["host", "connection", "via", "transfer-encoding"] {
        assert!(!stream.head.headers.contains_key(absent), "{absent}");
    }
    // Trailers without any byte of a body, in both forms.
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    stream
        .begin(Response::new(()))
        .send_trailers(trailers)
        .unwrap();
    let mut response = soon(response).await.unwrap();
    let (body, trailers) = whole(response.body_mut()).await.unwrap();
    assert_eq!(body, "");
    assert_eq!(trailers.unwrap()["x-sum"], "1");
}

#[tokio::test]
async fn a_trailer_in_the_sidecars_name_is_dropped() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let (response, _) = open(&app, request("GET", "/"), true).await;
    let mut stream = service.next().await;
    let mut body = stream.begin(Response::new(()));
    body.send_data(Bytes::from("down"), false).unwrap();
    let mut trailers = HeaderMap::new();
    let forged = "edge; details=\"sidentity\", sidentity; error=http_protocol_error";
    trailers.insert("proxy-status", HeaderValue::from_static(forged));
    body.send_trailers(trailers).unwrap();
    let mut response = soon(response).await.unwrap();
    let (_, trailers) = whole(response.body_mut()).await.unwrap();
    assert_eq!(
        trailers.unwrap()["proxy-status"],
        "edge; details=\"sidentity\""
    );
}

#[tokio::test]
async fn a_response_of_the_sidecar_to_head_has_no_content() {
    let (service, _metadata, sidecar) = started().await;
    let metrics = Request::head(format!("http://{}/metrics", sidecar.admin()));
    for (address, request) in [
        (sidecar.proxy(), request("HEAD", "/")),
        (sidecar.admin(), metrics.body(()).unwrap()),
    ] {
        let app = app(address).await;
        let (response, _) = open(&app, request, true).await;
        if address == sidecar.proxy() {
            let mut stream = service.next().await;
            stream.reply.send_reset(Reason::INTERNAL_ERROR);
        }
        let mut response = soon(response).await.unwrap();
        let length = response.headers()["content-length"].to_str().unwrap();
        assert_ne!(length, "0", "{address}");
        // Data would reset the stream: h2 treats it as a protocol error.
        let (content, trailers) = soon(whole(response.body_mut())).await.unwrap();
        assert!(content.is_empty() && trailers.is_none(), "{address}");
    }
}

#[tokio::test]
async fn a_head_far_over_the_limit_is_reported_as_too_large() {
    let (_service, _metadata, sidecar) = started().await;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(1024 * 1024);
    let app = app_with(sidecar.proxy(), &builder).await;
    let mut sent = request("GET", "/");
    let value = HeaderValue::from_str(&"y".repeat(15_000)).unwrap();
    for number in 0..60 {
        let name = http::HeaderName::try_from(format!("x-{number}"));
        sent.headers_mut().insert(name.unwrap(), value.clone());
    }
    let (response, _) = open(&app, sent, true).await;
    soon(response).await.unwrap_err();
    let line = sidecar
        .logged(|line| line["httpRequest"]["status"] == 431)
        .await;
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("too large"), "{detail}");
}
