//! The proxy's response to CONNECT: how it is parsed, and when it is an error.

use super::*;

/// Answers one `CONNECT`, then acts as the upstream.
async fn tunnel_opened_by(answer: &str) {
    let port = Port::open().await;
    let client = setting(port.address(), None).client();
    let target = http();
    let sent = client.get(&target, "/");
    let proxy = async {
        let mut wire = port.accept().await;
        wire.head().await;
        wire.send(answer).await;
        let head = wire.head().await;
        assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{answer}: {head}");
        assert_eq!(field(&head, "host"), Some(NAME));
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            .await;
        wire
    };
    let (got, _wire) = tokio::join!(sent, proxy);
    assert_eq!(got.unwrap().1, "hello", "{answer}");
}

#[tokio::test]
async fn any_2xx_opens_the_tunnel_even_with_body_fields() {
    for answer in [
        "HTTP/1.0 200 Connection established\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 x\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        tunnel_opened_by(answer).await;
    }
}

#[tokio::test]
async fn bytes_after_the_proxys_response_belong_to_the_tunnel() {
    let port = Port::open().await;
    let client = setting(port.address(), None).client();
    let origin = Origin::from_authority(Scheme::Https, "db.example:5432").unwrap();
    let tunnel = client.upstream.tunnel(&origin, Priority::Normal);
    let proxy = async {
        let mut wire = port.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ngreeting")
            .await;
        wire
    };
    let (tunnel, mut far) = tokio::join!(soon(tunnel), proxy);
    let mut tunnel = tunnel.unwrap();
    let mut greeting = [0; 8];
    soon(tunnel.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"greeting");
    tunnel.write_all(b"answer").await.unwrap();
    assert_eq!(far.exactly(6).await, "answer");
}

#[tokio::test]
async fn a_response_sent_byte_by_byte_is_read_to_its_end_only() {
    let port = Port::open().await;
    let client = setting(port.address(), None).client();
    let origin = Origin::from_authority(Scheme::Https, "db.example:5432").unwrap();
    let tunnel = client.upstream.tunnel(&origin, Priority::Normal);
    let proxy = async {
        let mut wire = port.accept().await;
        wire.head().await;
        for byte in b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nrest" {
            wire.send([*byte]).await;
        }
        wire
    };
    let (tunnel, _far) = tokio::join!(soon(tunnel), proxy);
    let mut rest = [0; 4];
    soon(tunnel.unwrap().read_exact(&mut rest)).await.unwrap();
    assert_eq!(&rest, b"rest");
}

#[tokio::test]
async fn a_proxy_that_breaks_http_is_an_error() {
    let port = Port::open().await;
    let client = setting(port.address(), None).client();
    for (answer, kind, words) in [
        (
            "SSH-2.0-OpenSSH\r\n".to_owned(),
            ErrorKind::HttpProtocol,
            "is this an HTTP proxy?",
        ),
        (
            "HTTP/1.1 101 Switching\r\n\r\n".to_owned(),
            ErrorKind::HttpProtocol,
            "switches protocols",
        ),
        (
            format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000)),
            ErrorKind::HttpProtocol,
            "16 KiB",
        ),
        (
            "HTTP/1.1 100 x\r\n\r\n".repeat(1000),
            ErrorKind::HttpProtocol,
            "interim",
        ),
        (
            String::new(),
            ErrorKind::ConnectionTerminated,
            "before the response to CONNECT",
        ),
        (
            "HTTP/1.1 200 O".to_owned(),
            ErrorKind::ConnectionTerminated,
            "before the response to CONNECT",
        ),
    ] {
        let words = [words, "https://api.example through the proxy"];
        fails_on(&client, &port, (&answer, true), kind, &words).await;
    }
    // TLS has not begun yet.
    for (outcome, count) in [("error", 6.0), ("tls", 0.0)] {
        let name = format!("sidentity_upstream_connects_total{{outcome=\"{outcome}\"}}");
        assert_eq!(client.metric(&name), count, "{outcome}");
    }
}

#[tokio::test]
async fn a_silent_proxy_fails_after_the_timeout() {
    let port = Port::open().await;
    let client = setting(port.address(), None)
        .with(|setting| setting.config.connect_timeout = Duration::from_millis(300))
        .client();
    for answer in ["", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20"] {
        let words = [
            "no response to CONNECT api.example:443 within 300ms",
            "through the proxy",
        ];
        fails_on(
            &client,
            &port,
            (answer, false),
            ErrorKind::ConnectionTimeout,
            &words,
        )
        .await;
    }
}
