//! Elements that differ between the versions of HTTP: trailers, cookies, lengths.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use super::frames::{HEADERS, RST_STREAM, Raw, frame, literal};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use super::support::streams::{Streams, app, open, whole};
use super::support::upstream::soon;
use super::support::wire::{Port, Wire, field};
use super::{HOST, beside, metric, request, started};

/// Trailers that must be removed, each with the meaning that a careless receiver would give it.
const FORBIDDEN: [(&str, &str); 31] = [
    ("Connection", "x-named"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Upgrade", "websocket"),
    ("Transfer-Encoding", "chunked"),
    ("TE", "gzip"),
    ("Trailer", "x-sum"),
    ("Host", "evil.test"),
    ("Content-Length", "99"),
    ("Content-Type", "text/html"),
    ("Content-Encoding", "gzip"),
    ("Content-Range", "bytes 0-1/2"),
    ("Authorization", "Bearer trailing"),
    ("X-Serverless-Authorization", "Bearer trailing"),
    ("Proxy-Authorization", "Basic eA=="),
    ("WWW-Authenticate", "Basic"),
    ("Set-Cookie", "a=1"),
    ("Cookie", "a=1"),
    ("X-Goog-Api-Key", "key"),
    ("Cache-Control", "no-store"),
    ("Forwarded", "for=192.0.2.1;host=evil.test"),
    ("Via", "1.1 evil.test"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Proto", "https"),
    ("X-Original-URL", "/admin"),
    ("DPoP", "proof"),
    ("X-Goog-IAP-JWT-Assertion", "assertion"),
    (
        "X-Goog-Authenticated-User-Email",
        "accounts.google.com:a@evil.test",
    ),
    ("X-Amz-Security-Token", "token"),
    ("Proxy-Authenticate", "Basic"),
];

/// Returns the app's HTTP/1.1 request up to its trailers, to the service.
fn chunked(fields: &str) -> String {
    format!(
        "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\n{fields}\r\n1\r\na\r\n0\r\n"
    )
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::try_from(*name).unwrap();
            (name, HeaderValue::from_static(value))
        })
        .collect()
}

/// Sends a request of an HTTP/2 app to an upstream that speaks HTTP/1.1 in cleartext.
fn to(port: &Port, method: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://{}/", port.address()))
}

async fn over_http1() -> (Port, Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &["--log-level", "info"]).await;
    (Port::open().await, metadata, sidecar)
}

#[tokio::test]
async fn a_trailer_that_http2_forbids_does_not_block_the_response() {
    let (service, _metadata, sidecar) = started().await;
    for (name, value) in FORBIDDEN {
        let mut app = Wire::open(sidecar.proxy()).await;
        let trailers = format!("X-Sum: 1\r\n{name}: {value}\r\nX-Named: 1\r\n\r\n");
        app.send(chunked("") + &trailers).await;
        let mut stream = service.next().await;
        let (body, trailers) = whole(&mut stream.body).await.unwrap();
        assert_eq!(body, "a", "{name}");
        let mut expected = fields(&[("x-sum", "1"), ("x-named", "1")]);
        if name == "Connection" {
            expected.remove("x-named");
        }
        assert_eq!(trailers, Some(expected), "{name}");
        stream.answer("ok");
        assert!(app.head().await.starts_with("HTTP/1.1 200 "), "{name}");
    }
}

#[tokio::test]
async fn a_body_whose_trailers_are_all_removed_ends_with_its_data() {
    let (service, _metadata, sidecar) = started().await;
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(chunked("") + "Connection: close\r\nUpgrade: h2c\r\n\r\n")
        .await;
    let mut stream = service.next().await;
    assert_eq!(whole(&mut stream.body).await.unwrap(), ("a".into(), None));
    stream.answer("ok");
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_trailer_named_by_connection_is_removed() {
    let (service, _metadata, sidecar) = started().await;
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(chunked("Connection: x-hop\r\n") + "X-Hop: 1\r\nX-Sum: 1\r\n\r\n")
        .await;
    let mut stream = service.next().await;
    let (_, trailers) = whole(&mut stream.body).await.unwrap();
    assert_eq!(trailers, Some(fields(&[("x-sum", "1")])));
    stream.answer("ok");
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn requests_with_invalid_trailers_release_their_permits() {
    const LIMIT: usize = 4;
    let service = Streams::start().await;
    let limit = LIMIT.to_string();
    let (_metadata, sidecar) =
        beside(&service, service.address, &["--max-connections", &limit]).await;
    tokio::spawn(async move {
        loop {
            let mut stream = service.next().await;
            if whole(&mut stream.body).await.is_ok() {
                stream.answer("ok");
            }
        }
    });
    for _ in 0..3 {
        for (trailers, status) in [
            ("Connection: x\r\n\r\n", "200"),
            ("Transfer-Encoding: chunked\r\n\r\n", "200"),
            ("Not A Trailer\r\n\r\n", "400"),
            ("\x01: 1\r\n\r\n", "400"),
        ] {
            let mut apps = Vec::new();
            for _ in 0..LIMIT {
                let mut app = Wire::open(sidecar.proxy()).await;
                app.send(chunked("Connection: close\r\n") + trailers).await;
                apps.push(app);
            }
            for mut app in apps {
                let answer = app.rest().await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{trailers:?}: {answer}"
                );
            }
            for gauge in ["connections", "requests_in_flight"] {
                let none = format!("sidentity_{gauge}{{listener=\"proxy\"}} 0");
                metric(&sidecar, &none).await;
            }
        }
    }
}

#[tokio::test]
async fn trailers_of_an_http2_app_are_filtered_both_ways() {
    let (service, _metadata, sidecar) = started().await;
    let app = app(sidecar.proxy()).await;
    let sent = fields(&[
        ("grpc-status", "0"),
        ("host", "evil.test"),
        ("content-length", "99"),
        ("authorization", "Bearer trailing"),
        ("x-serverless-authorization", "Bearer trailing"),
        ("proxy-authorization", "Basic eA=="),
        ("set-cookie", "a=1"),
        ("x-sum", "1"),
    ]);
    let passed = fields(&[("grpc-status", "0"), ("x-sum", "1")]);
    let (response, mut upload) = open(&app, request("POST", "/"), false).await;
    upload.send_data(Bytes::from("up"), false).unwrap();
    upload.send_trailers(sent.clone()).unwrap();
    let mut stream = service.next().await;
    let (body, trailers) = whole(&mut stream.body).await.unwrap();
    assert_eq!((&*body, trailers), (b"up" as &[u8], Some(passed.clone())));
    let mut download = stream.begin(Response::new(()));
    download.send_data(Bytes::from("down"), false).unwrap();
    download.send_trailers(sent).unwrap();
    let mut response = soon(response).await.unwrap();
    let (body, trailers) = whole(response.body_mut()).await.unwrap();
    assert_eq!((&*body, trailers), (b"down" as &[u8], Some(passed)));
}

#[tokio::test]
async fn trailers_of_an_http1_upstream_reach_an_http2_app() {
    let (port, _metadata, sidecar) = over_http1().await;
    let app = app(sidecar.proxy()).await;
    for (name, value) in FORBIDDEN {
        let sent = to(&port, "GET").body(()).unwrap();
        let (response, _) = open(&app, sent, true).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream
            .send(format!(
                "HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\na\r\n0\r\nX-Hop: 1\r\nX-Back: 2\r\n{name}: {value}\r\nGrpc-Status: 0\r\n\r\n"
            ))
            .await;
        let mut response = soon(response).await.unwrap();
        let (body, trailers) = whole(response.body_mut()).await.unwrap();
        assert_eq!(body, "a", "{name}");
        let expected = fields(&[("x-back", "2"), ("grpc-status", "0")]);
        assert_eq!(trailers, Some(expected), "{name}");
    }
}

#[tokio::test]
async fn announced_trailers_of_an_http2_request_with_length_reach_http1() {
    let (port, _metadata, sidecar) = over_http1().await;
    let app = app(sidecar.proxy()).await;
    let sent = to(&port, "POST")
        .header("content-length", "2")
        .header("trailer", "x-sum");
    let (response, mut upload) = open(&app, sent.body(()).unwrap(), false).await;
    upload.send_data(Bytes::from("up"), false).unwrap();
    upload.send_trailers(fields(&[("x-sum", "1")])).unwrap();
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "content-length"), None, "{head}");
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
    let (body, trailers) = upstream.chunked().await;
    assert_eq!((&*body, &*trailers), ("up", "x-sum: 1\r\n"));
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(soon(response).await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_grpc_status_reaches_an_http1_app_that_accepts_trailers() {
    let (service, _metadata, sidecar) = started().await;
    for (te, expected) in [("TE: trailers\r\n", "grpc-status: 7\r\n"), ("", "")] {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(format!(
            "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{te}Content-Length: 0\r\n\r\n"
        ))
        .await;
        let mut stream = service.next().await;
        let response = Response::builder().header("content-type", "application/grpc+proto");
        let mut download = stream.begin(response.body(()).unwrap());
        download.send_data(Bytes::from("a"), false).unwrap();
        let sent = fields(&[("grpc-status", "7"), ("host", "evil.test")]);
        download.send_trailers(sent).unwrap();
        let head = app.head().await;
        assert_eq!(field(&head, "trailer").is_some(), !te.is_empty(), "{head}");
        let (body, trailers) = app.chunked().await;
        assert_eq!((&*body, &*trailers), ("a", expected));
    }
}

#[tokio::test]
async fn split_cookies_are_joined_for_http1_and_kept_for_http2() {
    let (port, _metadata, sidecar) = over_http1().await;
    let client = app(sidecar.proxy()).await;
    let crumbs = |request: http::request::Builder| {
        request
            .header("cookie", "a=1")
            .header("x-between", "1")
            .header("cookie", "b=2; c=3")
            .body(())
            .unwrap()
    };
    let (response, _) = open(&client, crumbs(to(&port, "GET")), true).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2; c=3"), "{head}");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(soon(response).await.unwrap().status(), 204);

    let (service, _metadata, sidecar) = started().await;
    let client = app(sidecar.proxy()).await;
    let sent = Request::get(format!("http://{HOST}/"));
    let (_response, _) = open(&client, crumbs(sent), true).await;
    let stream = service.next().await;
    let cookies = stream.head.headers.get_all("cookie").iter();
    assert_eq!(cookies.collect::<Vec<_>>(), ["a=1", "b=2; c=3"]);
}

#[tokio::test]
async fn a_post_without_a_body_has_the_length_0_over_http1() {
    let (port, _metadata, sidecar) = over_http1().await;
    let app = app(sidecar.proxy()).await;
    let mut upstream = None;
    for (method, length) in [
        ("POST", Some("0")),
        ("PUT", Some("0")),
        ("PATCH", Some("0")),
        ("DELETE", None),
    ] {
        let sent = to(&port, method).body(()).unwrap();
        let (response, _) = open(&app, sent, true).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(field(&head, "content-length"), length, "{head}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
        wire.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(soon(response).await.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn an_http2_length_is_forwarded_as_one_number_or_refused() {
    let (port, _metadata, sidecar) = over_http1().await;
    let app_one = app(sidecar.proxy()).await;
    let (service, _metadata_two, sidecar_two) = started().await;
    let app_two = app(sidecar_two.proxy()).await;
    for lengths in [&["04"] as &[_], &["4", "4"], &["4", "04"]] {
        let with = |request: http::request::Builder| {
            let request = lengths.iter().fold(request, |request, length| {
                request.header("content-length", *length)
            });
            request.body(()).unwrap()
        };
        let (_response, mut upload) = open(&app_one, with(to(&port, "POST")), false).await;
        upload.send_data(Bytes::from("body"), true).unwrap();
        let mut upstream = port.accept().await;
        let head = upstream.head().await;
        assert_eq!(field(&head, "content-length"), Some("4"), "{lengths:?}");
        assert_eq!(upstream.exactly(4).await, "body");

        let sent = with(Request::post(format!("http://{HOST}/")));
        let (_response, mut upload) = open(&app_two, sent, false).await;
        upload.send_data(Bytes::from("body"), true).unwrap();
        let stream = service.next().await;
        let got = stream.head.headers.get_all("content-length").iter();
        assert_eq!(got.collect::<Vec<_>>(), ["4"], "{lengths:?}");
    }
    let sent = to(&port, "POST").header("content-length", "").body(());
    let (response, mut upload) = open(&app_one, sent.unwrap(), false).await;
    upload.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 400);
    port.untouched().await;
}

/// RFC 9113, 8.1.1: this stream is malformed.
#[tokio::test]
async fn an_http2_length_that_differs_from_the_data_resets_the_stream() {
    const DATA: u8 = 0;
    for (length, data) in [("2, 2", "ab"), ("2", "a"), ("2", "abc"), ("+2", "ab")] {
        let (port, _metadata, sidecar) = over_http1().await;
        let mut raw = Raw::open(sidecar.proxy()).await;
        let authority = port.address().to_string();
        let mut block = vec![0x83, 0x86, 0x84];
        block.extend(literal(1, &authority));
        // content-length has the index 28 of the static table, and the first byte holds up to 15.
        block.extend([0x0f, 28 - 15, length.len() as u8]);
        block.extend(length.as_bytes());
        raw.write(&frame(HEADERS, 0x4, 1, &block)).await;
        raw.write(&frame(DATA, 0x1, 1, data.as_bytes())).await;
        let reset = raw.find(RST_STREAM).await;
        assert_eq!(reset.stream, 1, "{length} {data}");
        metric(
            &sidecar,
            "sidentity_requests_in_flight{listener=\"proxy\"} 0",
        )
        .await;
    }
}
