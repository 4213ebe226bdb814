//! Heads byte for byte: names, order, paths, sizes; and invalid heads.

use super::http1::{between, request};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire, field};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Returns a route without a token to that upstream, and an app's connection to it.
async fn routed(path: &str) -> (Port, Metadata, Sidecar, Wire) {
    let port = Port::open().await;
    let metadata = Metadata::start().await;
    let route = format!(
        "127.0.0.1:0=http://{}{path},credential=none",
        port.address()
    );
    let sidecar = Sidecar::start(&metadata, &["--route", &route]).await;
    let app = Wire::open(sidecar.address("127.0.0.1:0")).await;
    (port, metadata, sidecar, app)
}

/// Returns the field lines without those that the sidecar may set itself.
fn lines(head: &str) -> Vec<&str> {
    head.lines()
        .skip(1)
        .filter(|line| !line.is_empty() && !line.starts_with("date:"))
        .collect()
}

#[tokio::test]
async fn field_names_keep_their_case_and_order() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let fields = "X-ReQuest-Id: 1\r\nACCEPT: a\r\nConnection: keep-alive\r\nx-lower: 2\r\nKeep-Alive: timeout=5\r\n\
                  X-Twice: a\r\nX-TWICE: b\r\nProxy-Connection: keep-alive\r\nx-Last: 3\r\nUser-Agent: u/1\r\n";
    app.send(request(&port, "GET /", fields)).await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    let at = port.address();
    let host = format!("Host: {at}");
    assert_eq!(
        lines(&head),
        [
            &*host,
            "X-ReQuest-Id: 1",
            "ACCEPT: a",
            "x-lower: 2",
            "X-Twice: a",
            "X-TWICE: b",
            "x-Last: 3",
            "User-Agent: u/1"
        ]
    );
    upstream
        .send(
            "HTTP/1.1 200 Fine\r\nX-First: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: y\r\nSET-Cookie: a=1\r\n\
             eTag: x\r\nKeep-Alive: timeout=5\r\nSet-cookie: b=2\r\ncontent-LENGTH: 2\r\nX-Last: 9\r\n\r\nok",
        )
        .await;
    let (head, _) = app.message().await;
    assert_eq!(
        lines(&head),
        [
            "X-First: 1",
            "SET-Cookie: a=1",
            "Set-cookie: b=2",
            "eTag: x",
            "content-LENGTH: 2",
            "X-Last: 9"
        ]
    );
}

#[tokio::test]
async fn two_hundred_fields_and_heads_of_64_kib_pass_both_ways() {
    let (port, _metadata, _sidecar, mut app) = between(&[]).await;
    let many: String = (0..200).map(|n| format!("X-N{n}: {n}\r\n")).collect();
    let big = format!("X-Big: {}\r\n", "b".repeat(64 * 1024));
    let mut upstream = None;
    for fields in [&many, &big] {
        app.send(request(&port, "GET /", fields)).await;
        let wire: &mut Wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert!(head.contains(fields.as_str()), "{} bytes", head.len());
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok"
        ))
        .await;
        let (head, body) = app.message().await;
        assert!(head.contains(fields.as_str()), "{} bytes", head.len());
        assert_eq!(body, "ok");
    }
}

#[tokio::test]
async fn paths_are_forwarded_byte_for_byte() {
    let long = format!("/long?q={}", "%20+a".repeat(32 * 1024 / 5));
    let paths = [
        "/a%2Fb//c;v=1/./d/../e",
        "/a|b[c]{d}^\"",
        "/%zz%",
        "/?",
        "/??a=b?c&d[]=e&f=|",
        "/caf\u{e9}/\u{65e5}\u{672c}?\u{e9}",
        "//",
        "//host/path",
        "/a:b@c!$&'()*+,=~",
        &long,
    ];
    let (port, _metadata, _sidecar, mut forward) = between(&[]).await;
    let mut upstream = None;
    for path in paths {
        forward
            .send(request(&port, &format!("GET {path}"), ""))
            .await;
        let wire: &mut Wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(head.lines().next(), Some(&*format!("GET {path} HTTP/1.1")));
        wire.send(OK).await;
        forward.message().await;
    }
    let (port, _metadata, sidecar, mut app) = routed("").await;
    let here = sidecar.address("127.0.0.1:0");
    let mut upstream = None;
    for path in paths {
        app.send(format!("GET {path} HTTP/1.1\r\nHost: {here}\r\n\r\n"))
            .await;
        let wire: &mut Wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        let head = wire.head().await;
        assert_eq!(head.lines().next(), Some(&*format!("GET {path} HTTP/1.1")));
        wire.send(OK).await;
        app.message().await;
    }
}

#[tokio::test]
async fn a_route_accepts_absolute_form_and_server_wide_options() {
    let (port, _metadata, sidecar, mut app) = routed("").await;
    let here = sidecar.address("127.0.0.1:0");
    app.send(format!(
        "GET http://{here}/x?y HTTP/1.1\r\nHost: {here}\r\n\r\n"
    ))
    .await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some(&*port.address().to_string()));
    upstream.send(OK).await;
    app.message().await;

    app.send(format!("OPTIONS * HTTP/1.1\r\nHost: {here}\r\n\r\n"))
        .await;
    let head = upstream.head().await;
    assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
    upstream.send(OK).await;
    app.message().await;

    app.send(format!(
        "GET http://elsewhere.test/ HTTP/1.1\r\nHost: {here}\r\n\r\n"
    ))
    .await;
    assert!(app.head().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_route_with_a_base_path_answers_options_for_that_path() {
    let (port, _metadata, sidecar, mut app) = routed("/v1").await;
    let here = sidecar.address("127.0.0.1:0");
    app.send(format!("OPTIONS * HTTP/1.1\r\nHost: {here}\r\n\r\n"))
        .await;
    let head = port.accept().await.head().await;
    assert!(head.starts_with("OPTIONS /v1/ HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn unusual_upstream_responses_pass_or_are_a_clear_error() {
    let (port, _metadata, sidecar, _) = between(&[]).await;
    let many: String = (0..300).map(|n| format!("X-N{n}: {n}\r\n")).collect();
    for (what, head, status) in [
        (
            "a folded line",
            "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n",
            502,
        ),
        (
            "a space before the colon",
            "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n",
            502,
        ),
        (
            "no name",
            "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n",
            502,
        ),
        (
            "no colon",
            "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n",
            502,
        ),
        (
            "a NUL",
            "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 2\r\n",
            502,
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
            502,
        ),
        (
            "an invalid Content-Length",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n",
            502,
        ),
        ("HTTP/3", "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n", 502),
        ("status 20", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n", 502),
        ("another protocol", "SSH-2.0-OpenSSH_9.6\r\n", 502),
        (
            "300 fields",
            &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n"),
            502,
        ),
        (
            "101 unasked",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n",
            502,
        ),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n", 200),
        (
            "an unknown status",
            "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n",
            299,
        ),
        (
            "status 999",
            "HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n",
            999,
        ),
        (
            "Latin-1",
            "HTTP/1.1 200 OK\r\nX-A: caf\u{e9}\r\nContent-Length: 2\r\n",
            200,
        ),
        (
            "an empty value",
            "HTTP/1.1 200 OK\r\nX-A:\r\nContent-Length: 2\r\n",
            200,
        ),
        (
            "the same length twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
            200,
        ),
    ] {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream.send(format!("{head}\r\nok")).await;
        let answer = app.head().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer}"
        );
        let told = field(&answer, "proxy-status").unwrap_or("");
        assert_eq!(
            told.contains("http_protocol_error"),
            status == 502,
            "{what}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_not_forwarded() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    let many: String = (0..300).map(|n| format!("X-N{n}: {n}\r\n")).collect();
    app.send(request(&port, "GET /", &many)).await;
    assert!(app.rest().await.starts_with("HTTP/1.1 431 "));
    let mut app = Wire::open(sidecar.proxy()).await;
    let _ = app
        .try_send(request(
            &port,
            "GET /",
            &format!("X: {}\r\n", "x".repeat(1 << 20)),
        ))
        .await;
    assert!(app.rest().await.starts_with("HTTP/1.1 431 "));
    port.untouched().await;
}
