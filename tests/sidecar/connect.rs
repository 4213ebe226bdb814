//! CONNECT: blind tunnels, and HTTP in those to port 80.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::started;
use super::support::app::{get, text};
use super::support::metadata::Kind;
use super::support::sidecar::Sidecar;
use super::support::upstream::{Honest, Manner};
use super::support::wire::Wire;

/// Reads until the end of the head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).await.unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Requests a tunnel.
pub(super) async fn connect(proxy: SocketAddr, target: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    (head(&mut stream).await, stream)
}

#[tokio::test]
async fn a_tunnel_is_blind_and_each_side_may_end_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let (_metadata, _service, sidecar) = started(&[]).await;
    let (answer, mut app) = connect(sidecar.proxy(), &target).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        !answer.to_lowercase().contains("content-length"),
        "{answer}"
    );
    let (mut upstream, _) = listener.accept().await.unwrap();
    app.write_all(b"\x16\x03\x01 anything").await.unwrap();
    app.shutdown().await.unwrap();
    let mut heard = Vec::new();
    upstream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x16\x03\x01 anything");
    upstream.write_all(b"late answer").await.unwrap();
    drop(upstream);
    let mut answer = String::new();
    app.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late answer");
}

/// Returns the head of the answer to a `CONNECT` with these fields, each with its line end.
async fn answer_to_connect(sidecar: &Sidecar, target: SocketAddr, fields: &str) -> String {
    let mut stream = TcpStream::connect(sidecar.proxy()).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    head(&mut stream).await
}

/// The bytes after the head belong to the tunnel, and content would take some of them (RFC 9110, 9.3.6).
#[tokio::test]
async fn a_connect_request_with_content_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let (_metadata, _service, sidecar) = started(&[]).await;
    for (fields, status) in [
        ("Content-Length: 5", 400),
        ("Transfer-Encoding: chunked", 400),
        ("Content-Length: 0", 200),
    ] {
        let fields = format!("Host: {target}\r\n{fields}\r\n");
        let answer = answer_to_connect(&sidecar, target, &fields).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{fields}: {answer}");
    }
}

#[tokio::test]
async fn a_tunnel_to_no_port_is_refused() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    for target in [
        "storage.googleapis.com",
        "storage.googleapis.com:",
        "http://storage.googleapis.com:443",
    ] {
        let (answer, _app) = connect(sidecar.proxy(), target).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
        assert!(
            answer.contains("CONNECT accepts HOST:PORT only, such as storage.googleapis.com:443"),
            "{target}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_blind_tunnel_without_a_token_is_counted_and_logged_once() {
    let (_metadata, service, sidecar) = started(&[]).await;
    for _ in 0..3 {
        let (answer, _stream) = connect(sidecar.proxy(), "storage.googleapis.com:443").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let hint = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or("");
        message.contains("storage.googleapis.com") && message.contains("--route")
    };
    sidecar.logged(hint).await;
    assert_eq!(sidecar.log().iter().filter(|line| hint(line)).count(), 1);
    let metrics = get(sidecar.admin(), "/metrics").await;
    assert!(text(&metrics).contains("sidentity_skipped_total{reason=\"tunnel\"} 3"));
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_that_cannot_connect_is_not_answered_with_200() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = closed.local_addr().unwrap().to_string();
    drop(closed);
    let (_metadata, _service, sidecar) = started(&["--rule", "denied.example.com=deny"]).await;
    let own = sidecar.admin().to_string();
    for (target, status) in [
        (target.as_str(), "502"),
        ("denied.example.com:443", "403"),
        (own.as_str(), "508"),
        ("bad host:443", "400"),
    ] {
        let (answer, _) = connect(sidecar.proxy(), target).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target}: {answer}"
        );
    }
}

/// Opens a tunnel for HTTP/1.1.
async fn tunnel(proxy: SocketAddr, target: &str) -> Wire {
    let (answer, stream) = connect(proxy, target).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    Wire::over(stream)
}

/// undici, gaxios, `curl -p` and WebSocket clients send this for `http://` and `ws://`.
#[tokio::test]
async fn http_in_a_tunnel_to_port_80_gets_a_token_and_is_sent_over_tls() {
    for args in [&[][..], &["--intercept"]] {
        let (_metadata, service, sidecar) = started(args).await;
        let mut app = tunnel(sidecar.proxy(), "storage.googleapis.com:80").await;
        for (target, host) in [
            ("/b/o?x=%2F", "storage.googleapis.com"),
            ("/second", "STORAGE.googleapis.com.:80"),
            (
                "http://storage.googleapis.com/third",
                "storage.googleapis.com:80",
            ),
            (
                "ws://storage.googleapis.com/fourth",
                "storage.googleapis.com",
            ),
        ] {
            app.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                .await;
            let (head, body) = app.message().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
            assert_eq!(body, "hello");
        }
        let targets: Vec<_> = service
            .seen()
            .iter()
            .map(|seen| seen.target.clone())
            .collect();
        assert_eq!(targets, ["/b/o?x=%2F", "/second", "/third", "/fourth"]);
        for seen in service.seen() {
            assert_eq!(seen.host, "storage.googleapis.com");
            assert_eq!(seen.header("authorization"), Some("Bearer T1"));
        }
        for line in [
            "sidentity_skipped_total{reason=\"tunnel\"} 0",
            "sidentity_requests_total{code=\"200\",credential=\"access\",listener=\"proxy\"} 4",
            "sidentity_requests_total{code=\"200\",credential=\"none\",listener=\"proxy\"} 1",
        ] {
            sidecar.counted(line).await;
        }
    }
}

#[tokio::test]
async fn http2_in_a_tunnel_to_port_80_gets_a_token() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let (answer, stream) = connect(sidecar.proxy(), "svc.a.run.app:80").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for (host, status) in [("svc.a.run.app", 200), ("evil.a.run.app", 421)] {
        let request = http::Request::get(format!("http://{host}/x"))
            .body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
    }
    let seen = service.only();
    assert!(super::is_for(
        seen.header("authorization"),
        "https://svc.a.run.app"
    ));
}

#[tokio::test]
async fn a_request_in_a_tunnel_to_port_80_must_name_its_host() {
    let (metadata, service, sidecar) = started(&[]).await;
    for (target, fields, status) in [
        ("/", "Host: storage.googleapis.com", 421),
        ("/", "Host: other.a.run.app", 421),
        ("/", "Host: svc.a.run.app:8080", 421),
        ("http://other.a.run.app/", "Host: other.a.run.app", 421),
        ("http://other.a.run.app/", "Host: svc.a.run.app", 400),
        ("http://svc.a.run.app/", "Host: other.a.run.app", 400),
        ("https://svc.a.run.app/", "Host: svc.a.run.app", 421),
        ("/", "Host: svc.a.run.app\r\nHost: svc.a.run.app", 400),
        ("/", "Host: a b", 400),
        ("/", "X: no Host", 400),
    ] {
        let mut app = tunnel(sidecar.proxy(), "svc.a.run.app:80").await;
        app.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n\r\n"))
            .await;
        let (head, _) = app.message().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target} {fields}: {head}"
        );
    }
    let mut app = tunnel(sidecar.proxy(), "svc.a.run.app:80").await;
    app.send("CONNECT svc.a.run.app:443 HTTP/1.1\r\nHost: svc.a.run.app:443\r\n\r\n")
        .await;
    assert!(app.message().await.0.starts_with("HTTP/1.1 400 "));
    assert!(service.seen().is_empty());
    let fetched = metadata.count(Kind::Access) + metadata.count(Kind::Identity);
    assert_eq!(fetched, 0);
}

#[tokio::test]
async fn an_app_that_disconnects_after_further_bytes_in_a_tunnel_to_port_80_is_noticed() {
    let upstream = Honest::start(Manner::default()).await;
    let plain = format!("plain.example.com:80:{}", upstream.address);
    let (_metadata, _service, sidecar) = started(&["--connect-to", &plain]).await;
    let mut app = tunnel(sidecar.proxy(), "plain.example.com:80").await;
    app.send("GET /hold HTTP/1.1\r\nHost: plain.example.com\r\n\r\n\r\n")
        .await;
    upstream.held(1).await;
    drop(app);
    upstream.cancelled(1).await;
}

#[tokio::test]
async fn an_open_tunnel_is_counted_as_one_connection() {
    let upstream = Honest::start(Manner::default()).await;
    let plain = format!("plain.example.com:80:{}", upstream.address);
    let (_metadata, _service, sidecar) = started(&["--connect-to", &plain]).await;
    let blind = upstream.address.to_string();
    let connections = |count| format!("sidentity_connections{{listener=\"proxy\"}} {count}");
    let mut http = tunnel(sidecar.proxy(), "plain.example.com:80").await;
    http.send("GET /x HTTP/1.1\r\nHost: plain.example.com\r\n\r\n")
        .await;
    http.head().await;
    sidecar.counted(&connections(1)).await;
    let blind = tunnel(sidecar.proxy(), &blind).await;
    sidecar.counted(&connections(2)).await;
    let mut socket = Wire::open(sidecar.proxy()).await;
    let at = upstream.address;
    socket
        .send(format!(
            "GET http://{at}/upgrade HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        ))
        .await;
    assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
    sidecar.counted(&connections(3)).await;
    drop((http, blind, socket));
    sidecar.counted(&connections(0)).await;
}

#[tokio::test]
async fn rules_and_metadata_access_apply_in_a_tunnel_to_port_80() {
    let upstream = Honest::start(Manner::default()).await;
    let plain = format!("plain.example.com:80:{}", upstream.address);
    let (metadata, service, sidecar) = started(&[
        "--connect-to",
        &plain,
        "--connect-to",
        "rebound.example.com:80:169.254.169.254:80",
        "--rule",
        "denied.example.com=deny",
        "--rule",
        "plain.example.com/admin=deny",
        "--metadata-access",
        "deny",
    ])
    .await;
    metadata.arrived(Kind::ProjectId, 1).await;
    let before = metadata.all_requests().len();
    for target in [
        "denied.example.com:80",
        "metadata.google.internal:80",
        "0xa9fea9fe:80",
    ] {
        let (answer, _) = connect(sidecar.proxy(), target).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{target}: {answer}");
    }
    for (host, path, status) in [
        ("plain.example.com", "/x", 200),
        ("plain.example.com", "/admin/x", 403),
        ("rebound.example.com", "/", 403),
    ] {
        let mut app = tunnel(sidecar.proxy(), &format!("{host}:80")).await;
        app.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let head = app.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host}: {head}"
        );
    }
    // A request without a token is sent in cleartext and unchanged.
    assert_eq!(upstream.only().headers.get("authorization"), None);
    assert!(service.seen().is_empty());
    assert_eq!(metadata.all_requests().len(), before);
}

#[tokio::test]
async fn every_spelling_of_a_denied_path_is_denied_in_a_tunnel_to_port_80() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = format!("plain.example.com:80:{}", listener.local_addr().unwrap());
    let rule = "plain.example.com/admin=deny";
    let (_metadata, _service, sidecar) = started(&["--connect-to", &plain, "--rule", rule]).await;
    let host = "Host: plain.example.com\r\n\r\n";
    let long = "A".repeat(33);
    for (line, refused) in [
        (format!("{long} /admin HTTP/1.1"), true),
        ("GET /admin HTTP/3.0".into(), false),
        ("GET /admin http/1.1".into(), false),
        (" GET /admin HTTP/1.1".into(), false),
        ("GET\t/admin HTTP/1.1".into(), false),
        ("GET /admin".into(), false),
    ] {
        let mut app = tunnel(sidecar.proxy(), "plain.example.com:80").await;
        app.send(format!("{line}\r\n{host}")).await;
        if refused {
            let head = app.head().await;
            assert!(head.starts_with("HTTP/1.1 403 "), "{line}: {head}");
        } else {
            assert_eq!(app.rest().await, "", "{line}");
        }
    }
    // The upstream was not dialled.
    let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_blind_tunnel_to_a_host_with_a_rule_for_a_path_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = format!("api.example.com:80:{}", listener.local_addr().unwrap());
    let rule = "api.example.com/v1=access";
    let (_metadata, _service, sidecar) = started(&["--connect-to", &to, "--rule", rule]).await;
    let mut app = tunnel(sidecar.proxy(), "api.example.com:80").await;
    app.send(b"\x00binary").await;
    let _upstream = listener.accept().await.unwrap();
    let message = "CONNECT tunnel to http://api.example.com";
    sidecar
        .logged(|line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.contains(message))
        })
        .await;
    sidecar
        .counted("sidentity_skipped_total{reason=\"tunnel\"} 1")
        .await;
}

#[tokio::test]
async fn a_websocket_in_a_tunnel_to_port_80_is_upgraded() {
    let upstream = Honest::start(Manner::default()).await;
    let plain = format!("plain.example.com:80:{}", upstream.address);
    let (_metadata, _service, sidecar) = started(&["--connect-to", &plain]).await;
    let mut app = tunnel(sidecar.proxy(), "plain.example.com:80").await;
    app.send(
        "GET /upgrade HTTP/1.1\r\nHost: plain.example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    )
    .await;
    let head = app.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    app.send("ping").await;
    assert_eq!(app.exactly(4).await, "ping");
}

#[tokio::test]
async fn bytes_that_are_not_http_in_a_tunnel_to_port_80_pass_through() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (plain, due) = (
        format!("plain.example.com:80:{address}"),
        format!("svc.a.run.app:80:{address}"),
    );
    let (_metadata, _service, sidecar) =
        started(&["--connect-to", &plain, "--connect-to", &due]).await;
    for (target, said) in [
        ("plain.example.com:80", &b"EHLO example.com\r\n"[..]),
        ("plain.example.com:80", b"\x16\x03\x01\x00\x05\x01half"),
        ("plain.example.com:80", b"GET /\r\n"),
        // The upstream sends the first bytes.
        ("plain.example.com:80", b""),
        ("svc.a.run.app:80", b"\x00binary"),
    ] {
        let mut app = tunnel(sidecar.proxy(), target).await;
        app.send(said).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        upstream.write_all(b"220 hello\r\n").await.unwrap();
        assert_eq!(app.exactly(11).await, "220 hello\r\n");
        let mut heard = vec![0; said.len()];
        upstream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
    }
    let hint = sidecar
        .logged(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("CONNECT tunnel to http://svc.a.run.app")
        })
        .await;
    let message = hint["message"].as_str().unwrap();
    assert!(message.contains("neither HTTP nor TLS"), "{message}");
    sidecar
        .counted("sidentity_skipped_total{reason=\"tunnel\"} 1")
        .await;
}

#[tokio::test]
async fn a_tunnel_to_port_80_asks_for_the_password_once() {
    let (_metadata, service, sidecar) = started(&["--proxy-auth", "app:s3cret"]).await;
    let (answer, _) = connect(sidecar.proxy(), "svc.a.run.app:80").await;
    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(
        "CONNECT svc.a.run.app:80 HTTP/1.1\r\nHost: svc.a.run.app:80\r\n\
         Proxy-Authorization: Basic YXBwOnMzY3JldA==\r\n\r\n",
    )
    .await;
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
    app.send("GET / HTTP/1.1\r\nHost: svc.a.run.app\r\n\r\n")
        .await;
    assert!(app.message().await.0.starts_with("HTTP/1.1 200 "));
    assert_eq!(service.only().host, "svc.a.run.app");
}

/// The tunnel would hide the path from the rule.
#[tokio::test]
async fn a_denied_path_cannot_be_reached_through_a_blind_tunnel() {
    let (_metadata, service, sidecar) = started(&[
        "--rule",
        "plain.example.com/admin=deny",
        "--rule",
        "private.example.com=id",
        "--rule",
        "private.example.com/admin=deny",
    ])
    .await;
    for host in ["plain.example.com:443", "private.example.com:443"] {
        let (answer, _app) = connect(sidecar.proxy(), host).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{host}: {answer}");
        assert!(answer.contains("hides the path"), "{host}: {answer}");
        let rule = format!("--rule {}/admin=deny", host.trim_end_matches(":443"));
        assert!(answer.contains(&rule), "{host}: {answer}");
        let line = sidecar.logged(|line| line["rule"] == rule.as_str()).await;
        let said = line["advice"].as_str().unwrap();
        assert!(
            said.contains("add the --route that the detail names"),
            "{said}"
        );
        let explained = std::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(["explain", "--rule"])
            .args([
                rule.trim_start_matches("--rule "),
                &format!("https://{host}/"),
            ])
            .env_clear()
            .output()
            .unwrap();
        let explained = String::from_utf8(explained.stdout).unwrap();
        assert!(
            explained.contains(&format!("because {rule} denies")),
            "{explained}"
        );
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn the_host_of_a_connect_must_name_its_target_or_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let (_metadata, _service, sidecar) = started(&[]).await;
    let proxy = sidecar.proxy();
    for (fields, status) in [
        (String::new(), 200),
        // Node's `http.request` sends the address of the proxy.
        (format!("Host: {proxy}\r\n"), 200),
        (format!("Host: localhost:{}\r\n", proxy.port()), 200),
        (format!("Host: other.example:{}\r\n", proxy.port()), 400),
        ("Host: localhost:1\r\n".to_owned(), 400),
        (format!("Host: {target}\r\n"), 200),
        ("Host: 127.0.0.1\r\n".to_owned(), 200),
        ("Host: other.example:443\r\n".to_owned(), 400),
        (format!("Host: {target}\r\nHost: {target}\r\n"), 400),
        ("Host: a b\r\n".to_owned(), 400),
        ("Host: http://x\r\n".to_owned(), 400),
        ("Host: \r\n".to_owned(), 400),
    ] {
        let answer = answer_to_connect(&sidecar, target, &fields).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{fields}: {answer}");
    }
}

#[tokio::test]
async fn a_tunnel_whose_requests_are_served_takes_one_place_of_the_limit() {
    let (_metadata, _service, sidecar) = started(&["--max-connections", "1"]).await;
    let (answer, mut app) = connect(sidecar.proxy(), "svc.a.run.app:80").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let request = "GET / HTTP/1.1\r\nHost: svc.a.run.app\r\n\r\n";
    app.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut app).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
