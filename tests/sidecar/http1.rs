//! HTTP/1.1 and HTTP/1.0: framing, trailers, interim and early responses, connections.

use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire, field};

/// Returns an upstream, a sidecar, and an app's connection to its forward proxy.
pub(super) async fn between(args: &[&str]) -> (Port, Metadata, Sidecar, Wire) {
    let port = Port::open().await;
    let metadata = Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, args).await;
    let app = Wire::open(sidecar.proxy()).await;
    (port, metadata, sidecar, app)
}

/// Returns the head of a request to that upstream through the forward proxy, with further fields.
pub(super) fn request(port: &Port, line: &str, fields: &str) -> String {
    let at = port.address();
    let (method, path) = line.split_once(' ').unwrap();
    format!("{method} http://{at}{path} HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let fields =
        "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\nConnection: TE\r\n";
    app.send(request(&port, "POST /", fields)).await;
    app.send("3\r\nabc\r\n").await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&head, "trailer"), Some("X-Sum"));
    assert_eq!(field(&head, "te"), Some("trailers"));
    // A chunk is not delayed until the next one arrives.
    assert_eq!(upstream.exactly(8).await, "3\r\nabc\r\n");
    app.send("2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n").await;
    let (body, trailers) = upstream.chunked().await;
    assert_eq!((&*body, &*trailers.to_lowercase()), ("de", "x-sum: 5\r\n"));

    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Back\r\n\r\n1\r\nz\r\n")
        .await;
    let head = app.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&head, "trailer"), Some("X-Back"));
    assert_eq!(app.exactly(6).await, "1\r\nz\r\n");
    upstream.send("1\r\ny\r\n0\r\nX-Back: 2\r\n\r\n").await;
    let (body, trailers) = app.chunked().await;
    assert_eq!((&*body, &*trailers.to_lowercase()), ("y", "x-back: 2\r\n"));
}

#[tokio::test]
async fn forbidden_trailers_are_removed() {
    const NAMES: &str = "X-Serverless-Authorization, X-Goog-Api-Key, Cookie, Upgrade, X-Hop, X-Sum";
    const TRAILERS: &str = "0\r\nX-Serverless-Authorization: Bearer a\r\nX-Goog-Api-Key: b\r\n\
        Cookie: c\r\nUpgrade: d\r\nX-Hop: e\r\nX-Sum: 1\r\n\r\n";
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let fields = format!(
        "Transfer-Encoding: chunked\r\nTrailer: {NAMES}\r\nTE: trailers\r\nConnection: TE, X-Hop\r\n"
    );
    app.send(request(&port, "POST /", &fields) + "1\r\na\r\n" + TRAILERS)
        .await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    let (body, trailers) = upstream.chunked().await;
    assert_eq!((&*body, &*trailers.to_lowercase()), ("a", "x-sum: 1\r\n"));
    let head = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {NAMES}\r\nConnection: X-Hop\r\n\r\n"
    );
    upstream.send(head + "1\r\nb\r\n" + TRAILERS).await;
    app.head().await;
    let (body, trailers) = app.chunked().await;
    assert_eq!((&*body, &*trailers.to_lowercase()), ("b", "x-sum: 1\r\n"));
}

#[tokio::test]
async fn a_chunked_body_of_any_method_arrives() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for method in ["GET", "DELETE", "OPTIONS", "QUERY", "PUT"] {
        let line = format!("{method} /");
        app.send(request(&port, &line, "Transfer-Encoding: chunked\r\n"))
            .await;
        app.send("5\r\nquery\r\n0\r\n\r\n").await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert!(
            head.starts_with(&format!("{method} / HTTP/1.1\r\n")),
            "{head}"
        );
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        assert_eq!(wire.chunked().await.0, "query");
        wire.send(OK).await;
        assert_eq!(app.message().await.1, "ok");
    }
}

#[tokio::test]
async fn a_content_length_is_forwarded() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for (method, body) in [
        ("POST", ""),
        ("PUT", "abc"),
        ("GET", "abc"),
        ("DELETE", "abc"),
        ("PATCH", ""),
    ] {
        let length = body.len();
        let fields = format!("Content-Length: {length}\r\n");
        app.send(request(&port, &format!("{method} /"), &fields))
            .await;
        app.send(body).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(
            field(&head, "content-length"),
            Some(&*length.to_string()),
            "{head}"
        );
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
        assert_eq!(wire.exactly(length).await, body);
        wire.send(OK).await;
        let (head, _) = app.message().await;
        assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
    }
    // A length that was not declared is not added.
    app.send(request(&port, "POST /", "")).await;
    let wire = upstream.as_mut().unwrap();
    let head = wire.head().await;
    assert_eq!(field(&head, "transfer-encoding"), None, "{head}");
    wire.send(OK).await;
    app.message().await;
}

#[tokio::test]
async fn responses_without_a_body_keep_their_fields_and_the_connection() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for (line, answer, length, chunked) in [
        (
            "HEAD /a",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            Some("1234"),
            None,
        ),
        (
            "HEAD /b",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
            None,
        ),
        ("HEAD /c", "HTTP/1.1 200 OK\r\nETag: x\r\n\r\n", None, None),
        ("GET /d", "HTTP/1.1 204 No Content\r\n\r\n", None, None),
        // hyper omits the length of a 304, which is allowed (RFC 9110, 15.4.5).
        (
            "GET /e",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
            Some("99"),
            None,
        ),
        (
            "GET /f",
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
            None,
            None,
        ),
        (
            "GET /g",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
            None,
        ),
        (
            "HEAD /h",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
            None,
        ),
    ] {
        app.send(request(&port, line, "")).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        wire.send(answer).await;
        let head = app.head().await;
        let status: String = answer.lines().next().unwrap().to_owned();
        assert!(head.starts_with(&status), "{line}: {head}");
        assert_eq!(field(&head, "content-length"), length, "{line}: {head}");
        assert_eq!(field(&head, "transfer-encoding"), chunked, "{line}: {head}");
        assert_eq!(field(&head, "connection"), None, "{line}: {head}");
    }
    // The next bytes are the next response, not a rest of the previous ones.
    app.send(request(&port, "GET /", "")).await;
    let wire = upstream.as_mut().unwrap();
    wire.head().await;
    wire.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn interim_responses_of_the_upstream_are_handled() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        .await;
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    upstream.send(OK).await;
    let (head, body) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(field(&head, "link"), None);
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut all = String::new();
    for path in ["/1", "/2", "/3"] {
        all += &request(&port, &format!("GET {path}"), "");
    }
    all += &request(&port, "POST /4", "Content-Length: 2\r\n");
    all += "hi";
    app.send(all).await;
    let mut upstream = port.accept().await;
    for path in ["/1", "/2", "/3", "/4"] {
        let head = upstream.head().await;
        assert_eq!(head.split(' ').nth(1), Some(path));
        if path == "/4" {
            assert_eq!(upstream.exactly(2).await, "hi");
        }
        upstream
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{path}"
            ))
            .await;
        assert_eq!(app.message().await.1, path);
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_the_body_reaches_the_app_at_once() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "POST /", "Content-Length: 6\r\n"))
        .await;
    app.send("abc").await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    assert_eq!(upstream.exactly(3).await, "abc");
    upstream.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
    // The body continues. The next call must not use this connection, because the upstream may take it for the rest of
    // the body.
    app.send("def").await;
    assert_eq!(upstream.exactly(3).await, "def");
    app.send(request(&port, "GET /next", "")).await;
    let mut next = port.accept().await;
    assert!(next.head().await.starts_with("GET /next "));
    assert_eq!(upstream.rest().await, "");
    next.send(OK).await;
    assert_eq!(app.message().await.1, "ok");
}

#[tokio::test]
async fn an_early_refusal_reaches_the_app_however_the_upstream_closes() {
    let (port, _metadata, _sidecar, _) = between(&[]).await;
    for round in 0..20 {
        let mut app = Wire::open(_sidecar.proxy()).await;
        let body = vec![b'x'; 4 << 20];
        let head = request(
            &port,
            "POST /",
            &format!("Content-Length: {}\r\n", body.len()),
        );
        app.send(head).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream
            .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
        // Closing with unread bytes resets the connection.
        drop(upstream);
        let _ = app.try_send(&body).await;
        let (head, text) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 413 "), "round {round}: {head}");
        assert_eq!(text, "big");
    }
}

#[tokio::test]
async fn an_app_that_writes_its_whole_upload_first_gets_the_502() {
    let (port, _metadata, sidecar, _) = between(&[]).await;
    let body = vec![b'x'; 16 << 20];
    let fields = format!("Content-Length: {}\r\n", body.len());
    let head = request(&port, "POST /", &fields);
    drop(port);
    for round in 0..5 {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(&head).await;
        let written = app.try_send(&body).await;
        assert!(written.is_ok(), "round {round}: {written:?}");
        let (head, _) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "round {round}: {head}");
        assert_eq!(app.rest().await, "");
    }
}

#[tokio::test]
async fn an_http_1_0_response_does_not_close_the_apps_connection() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /1", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    drop(upstream);
    let head = app.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(app.chunked().await.0, "all of it");

    app.send(request(&port, "GET /2", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let (head, body) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!((field(&head, "connection"), &*body), (None, "ok"));

    // HTTP/1.1 may do so too.
    app.send(request(&port, "GET /3", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        .await;
    upstream.send("to the end").await;
    drop(upstream);
    let head = app.head().await;
    assert_eq!(field(&head, "connection"), None, "{head}");
    assert_eq!(app.chunked().await.0, "to the end");
}

#[tokio::test]
async fn an_http_1_0_app_gets_no_chunks() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    let at = port.address();
    app.send(format!("GET http://{at}/ HTTP/1.0\r\n\r\n")).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some(&*at.to_string()));
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    let answer = app.rest().await;
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert_eq!(field(&answer, "transfer-encoding"), None);

    let mut app = Wire::open(sidecar.proxy()).await;
    for _ in 0..2 {
        app.send(format!(
            "GET http://{at}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        ))
        .await;
        upstream.head().await;
        upstream.send(OK).await;
        let (head, body) = app.message().await;
        assert_eq!(field(&head, "connection"), Some("keep-alive"), "{head}");
        assert_eq!(body, "ok");
    }
}

#[tokio::test]
async fn a_kept_http_1_0_connection_is_announced_as_closing_if_its_end_ends_the_response() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let at = port.address();
    let get = format!("GET http://{at}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    app.send(get).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    let answer = app.rest().await;
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"), "{answer}");
}

/// The app would take it for the challenge of the sidecar (RFC 9110, 11.7.1).
#[tokio::test]
async fn the_challenge_of_an_upstream_for_its_proxy_does_not_reach_the_app() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send(
            "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\
             Proxy-Authentication-Info: x=1\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno",
        )
        .await;
    let (head, body) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    assert_eq!(field(&head, "proxy-authenticate"), None, "{head}");
    assert_eq!(field(&head, "proxy-authentication-info"), None, "{head}");
    assert_eq!(field(&head, "www-authenticate"), Some("Basic"), "{head}");
    assert_eq!(body, "no");
}

#[tokio::test]
async fn connection_close_of_the_app_closes_only_its_own_connection() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(&port, "GET /", "Connection: close\r\n"))
        .await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert_eq!(field(&head, "connection"), None, "{head}");
    upstream.send(OK).await;
    assert!(app.rest().await.ends_with("ok"));
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    upstream.head().await;
}

#[tokio::test]
async fn an_unsupported_transfer_coding_is_refused() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    app.send(request(
        &port,
        "POST /",
        "Transfer-Encoding: gzip, chunked\r\n",
    ))
    .await;
    app.send("0\r\n\r\n").await;
    assert!(app.head().await.starts_with("HTTP/1.1 400 "));
    port.untouched().await;

    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(request(&port, "GET /", "")).await;
    let mut upstream = port.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        .await;
    let (head, _) = app.message().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("http_protocol_error"), "{head}");
}

#[tokio::test]
async fn a_response_with_both_lengths_is_read_by_its_chunks() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        app.send(request(&port, "GET /", "")).await;
        let mut wire = match upstream.take() {
            Some(wire) => wire,
            None => port.accept().await,
        };
        wire.head().await;
        wire.send(format!(
            "HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n"
        ))
        .await;
        let head = app.head().await;
        assert_eq!(field(&head, "content-length"), None, "{head}");
        assert_eq!(app.chunked().await.0, "hello");
        drop(wire);
    }
}

#[tokio::test]
async fn an_invalid_name_in_connection_does_not_hide_others() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let fields = "Connection: x-one, \u{e9}, x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n";
    app.send(request(&port, "GET /", fields)).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    let passed = ["connection", "x-one", "x-two", "x-three"].map(|name| field(&head, name));
    assert_eq!(passed, [None, None, None, Some("3")], "{head}");
    upstream
        .send("HTTP/1.1 200 OK\r\nConnection: x-one, \u{e9}\r\nX-One: 1\r\nX-Two: 2\r\nContent-Length: 0\r\n\r\n")
        .await;
    let head = app.head().await;
    let passed = ["connection", "x-one", "x-two"].map(|name| field(&head, name));
    assert_eq!(passed, [None, None, Some("2")], "{head}");
}
