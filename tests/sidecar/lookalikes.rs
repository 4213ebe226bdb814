//! Hosts that only look like Google's get no token.

use super::started;
use super::support::app::{proxied, raw};
use super::support::metadata::Kind;
use super::support::service::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Starts a listener in cleartext that passes on what it received.
async fn eavesdropper() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 65536];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let _ = heard.send(String::from_utf8_lossy(&bytes[..read]).to_lowercase());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nplain";
            let _ = stream.write_all(answer).await;
        }
    });
    (port, receiver)
}

#[tokio::test]
async fn lookalikes_of_google_hosts_get_no_token() {
    let (port, mut heard) = eavesdropper().await;
    let everything = format!("::127.0.0.1:{port}");
    let (metadata, _service, sidecar) = started(&["--connect-to", &everything]).await;
    for url in [
        "http://evilgoogleapis.com/",
        "http://googleapis.com.evil.test/",
        "http://googleapis.com/",
        "http://storage.googleapis.com:8080/",
        "http://199.36.153.8/",
        "http://storage.googleapis.com@evil.test/",
        "http://a.run.app.evil.test/",
        "http://arun.app/",
    ] {
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(response.body(), "plain", "{url}");
        let heard = heard.recv().await.unwrap();
        assert!(!heard.contains("authorization"), "{url}: {heard}");
    }
    assert_eq!(
        metadata.count(Kind::Access) + metadata.count(Kind::Identity),
        0
    );
}

#[tokio::test]
async fn other_spellings_of_google_hosts_are_recognised() {
    let (_metadata, service, sidecar) = started(&[]).await;
    for url in [
        "http://STORAGE.GoogleAPIs.com/",
        "http://storage.googleapis.com./",
        "http://storage.googleapis.com:80/",
        "https://storage.googleapis.com:443/",
        "http://STORAGE.GOOGLEAPIS.COM:443/",
    ] {
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(response.body(), "hello", "{url}");
    }
    assert_eq!(service.seen().len(), 5);
    for seen in service.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer T1"));
        assert_eq!(seen.host, "storage.googleapis.com");
    }
}

/// `Host` is ignored (RFC 9112, 3.2.2), so it need not be a valid DNS name.
#[tokio::test]
async fn a_host_header_that_differs_from_the_absolute_target_is_ignored() {
    let (_metadata, service, sidecar) = started(&[]).await;
    for (host, status) in [
        ("a!b", 200),
        ("a%20b", 200),
        ("a!b:8080", 200),
        ("a..b", 200),
        ("a:99999", 200),
        ("a$&'()*+,;=b", 200),
        ("[v1.a]", 200),
        ("1.2.3.4.5", 200),
        ("a%2", 400),
        ("a%zz", 400),
        ("a/b", 400),
        ("a b", 400),
        ("a@b", 400),
        ("a:b", 400),
        ("[::1", 400),
        ("a\"b", 400),
    ] {
        let before = service.seen().len();
        let request = format!(
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{host}: {answer}");
        let seen = service.seen();
        assert_eq!(seen.len() - before, usize::from(status == 200), "{host}");
        assert!(
            seen.iter()
                .all(|seen| seen.host == "storage.googleapis.com")
        );
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let (metadata, service, sidecar) = started(&[]).await;
    for (what, request) in [
        (
            "a Host that is no authority",
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage googleapis.com\r\n\r\n",
        ),
        (
            "an empty Host",
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost:\r\n\r\n",
        ),
        (
            "a Host with user-info",
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: a@storage.googleapis.com\r\n\r\n",
        ),
        (
            "two Hosts",
            "GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\nHost: evil.test\r\n\r\n",
        ),
        (
            "no Host",
            "GET http://storage.googleapis.com/ HTTP/1.1\r\n\r\n",
        ),
        (
            "origin form",
            "GET / HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n",
        ),
        (
            "no such scheme",
            "GET ftp://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n",
        ),
        (
            "port 0",
            "GET http://storage.googleapis.com:0/ HTTP/1.1\r\nHost: storage.googleapis.com:0\r\n\r\n",
        ),
    ] {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    assert!(service.seen().is_empty());
    assert_eq!(metadata.count(Kind::Access), 0);
}

#[tokio::test]
async fn two_lengths_are_not_forwarded() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let request = "POST http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\
        Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
    raw(sidecar.proxy(), request.as_bytes()).await;
    for seen in service.seen() {
        assert_eq!((&*seen.target, &seen.body[..]), ("/", b"hello" as &[u8]));
    }
    assert!(service.seen().len() <= 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_prevents_sending_the_token() {
    let service = Service::start().await;
    let (_metadata, sidecar) =
        super::started_with(&service, &["--rule", "*.other.test=access"]).await;
    let response = proxied(sidecar.proxy(), "http://api.other.test/", &[]).await;
    assert_eq!(response.status(), 502);
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(status.contains("error=tls_certificate_error"), "{status}");
    assert!(service.seen().is_empty());
}
