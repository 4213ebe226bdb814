//! CONNECT: blind tunnels.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::started;
use super::support::app::{get, text};

/// Reads until the head's end.
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

/// Asks for a tunnel.
pub(super) async fn connect(proxy: std::net::SocketAddr, target: &str) -> (String, TcpStream) {
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
            answer.contains("CONNECT takes HOST:PORT, like storage.googleapis.com:443"),
            "{target}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_tunnel_that_keeps_a_token_out_is_counted_and_hinted_at_once() {
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
async fn a_tunnel_that_cannot_be_dug_is_no_200() {
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
