//! `Content-Length` and cookies, which HTTP/1.1 has in one field (RFC 9110, 8.6; RFC 9113, 8.2.3).

use super::http1::{between, request};
use super::support::wire::field;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_repeated_length_is_forwarded_as_one_number() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for fields in [
        "Content-Length: 4\r\n",
        "Content-Length: 04\r\n",
        "Content-Length: 0000000000000000000000000004\r\n",
        "Content-Length:  \t4 \r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 04\r\nX-Between: 1\r\nContent-Length: 4\r\n",
    ] {
        app.send(request(&port, "POST /", fields) + "body").await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(field(&head, "content-length"), Some("4"), "{head}");
        assert_eq!(wire.exactly(4).await, "body");
        wire.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
}

#[tokio::test]
async fn a_repeated_response_length_reaches_the_app_as_one_number() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for (method, fields) in [
        ("GET", "Content-Length: 2, 2"),
        ("GET", "Content-Length: 2,2"),
        ("GET", "Content-Length: 02"),
        ("GET", "Content-Length: 2\r\nContent-Length: 2"),
        ("GET", "Content-Length: 002\r\nContent-Length: 2, 2"),
        ("HEAD", "Content-Length: 2, 2"),
        ("HEAD", "Content-Length: 02\r\nContent-Length: 2"),
    ] {
        app.send(request(&port, &format!("{method} /"), "")).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        let body = if method == "HEAD" { "" } else { "ok" };
        wire.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"))
            .await;
        let head = app.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{fields}: {head}");
        assert_eq!(field(&head, "content-length"), Some("2"), "{fields}");
        assert_eq!(app.exactly(body.len()).await, body);
    }
}

#[tokio::test]
async fn a_response_length_that_is_not_one_number_is_a_502() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    for (method, fields) in [
        ("GET", "Content-Length: 2, 3"),
        ("GET", "Content-Length: 2\r\nContent-Length: 3"),
        ("GET", "Content-Length: +2"),
        ("GET", "Content-Length:"),
        ("GET", "Content-Length: 2,"),
        ("GET", "Content-Length: 18446744073709551618"),
        ("HEAD", "Content-Length: 2, 3"),
        ("HEAD", "Content-Length: +2"),
        ("HEAD", "Content-Length:"),
        ("HEAD", "Content-Length: 18446744073709551618"),
    ] {
        app.send(request(&port, &format!("{method} /"), "")).await;
        let mut wire = port.accept().await;
        wire.head().await;
        wire.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"))
            .await;
        let head = app.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{fields}: {head}");
        let status = field(&head, "proxy-status").unwrap();
        assert!(status.contains("http_protocol_error"), "{fields}: {head}");
        if method == "GET" {
            let length = field(&head, "content-length").unwrap().parse().unwrap();
            app.exactly(length).await;
        }
    }
}

/// Otherwise Google's front ends answer 411.
#[tokio::test]
async fn a_post_without_a_body_has_the_length_0() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for (method, length) in [
        ("POST", Some("0")),
        ("PUT", Some("0")),
        ("PATCH", Some("0")),
        ("GET", None),
        ("DELETE", None),
        ("OPTIONS", None),
    ] {
        app.send(request(&port, &format!("{method} /"), "")).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(field(&head, "content-length"), length, "{head}");
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
        wire.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
}

#[tokio::test]
async fn cookie_fields_are_joined_in_order() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let cookies = "Cookie: a=1; b=2\r\nX-Between: 1\r\nCookie: c=3\r\n";
    app.send(request(&port, "GET /", cookies)).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2; c=3"), "{head}");
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn the_length_of_a_304_reaches_the_app() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for count in 1..3 {
        app.send(request(&port, "GET /", "")).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        wire.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n")
            .await;
        let head = app.head().await;
        assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
        assert_eq!(field(&head, "content-length"), Some("5"), "{head}");
        let line = "sidentity_requests_total{code=\"304\",credential=\"none\",listener=\"proxy\"}";
        sidecar.counted(&format!("{line} {count}")).await;
    }
}
