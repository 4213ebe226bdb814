//! TRACE, OPTIONS and `Max-Forwards` (RFC 9110, 7.6.2 and 9.3), and the `Proxy-Status` that an app gets.

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

use super::support::app::raw;
use super::support::metadata::Kind;
use super::support::service::Service;
use super::support::streams::{app, open, whole};
use super::support::upstream::soon;
use super::support::wire::{Wire, field};
use super::{started, started_with};

const HOST: &str = "svc.a.run.app";

/// Sends one HTTP/1.1 request through the forward proxy and returns the whole response.
async fn call(proxy: std::net::SocketAddr, method: &str, target: &str, fields: &str) -> String {
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}Connection: close\r\n\r\n");
    raw(proxy, head.as_bytes()).await
}

#[tokio::test]
async fn trace_is_forwarded_without_a_token() {
    let (metadata, service, sidecar) = started(&[]).await;
    let answer = call(
        sidecar.proxy(),
        "TRACE",
        &format!("http://{HOST}/x"),
        "Max-Forwards: 3\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let app = app(sidecar.proxy()).await;
    let sent = Request::builder()
        .method("TRACE")
        .uri("http://storage.googleapis.com/b")
        .body(())
        .unwrap();
    let (response, _) = open(&app, sent, true).await;
    assert_eq!(soon(response).await.unwrap().status(), 200);

    let answer = call(sidecar.proxy(), "trace", &format!("http://{HOST}/x"), "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let seen = service.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen {
        assert!(
            seen.method.as_str().eq_ignore_ascii_case("TRACE"),
            "{}",
            seen.method
        );
        for name in [
            "authorization",
            "x-serverless-authorization",
            "proxy-authorization",
            "x-goog-user-project",
        ] {
            assert_eq!(seen.header(name), None, "{name}");
        }
    }
    assert_eq!(seen[0].header("max-forwards"), Some("2"));
    assert_eq!(metadata.count(Kind::Access), 0);
    assert_eq!(metadata.count(Kind::Identity), 0);
    sidecar
        .counted("sidentity_skipped_total{reason=\"trace\"} 3")
        .await;
    sidecar
        .counted("sidentity_requests_total{code=\"200\",credential=\"none\",listener=\"proxy\"} 3")
        .await;
}

#[tokio::test]
async fn a_trace_with_max_forwards_0_is_echoed_without_secrets() {
    let (_metadata, service, sidecar) = started(&[]).await;
    let answer = call(
        sidecar.proxy(),
        "TRACE",
        &format!("http://{HOST}/x?y=1"),
        "Max-Forwards: 0\r\nX-Seen: here\r\nAuthorization: Bearer secret1\r\nCookie: a=secret2\r\n\
         Proxy-Authorization: Basic secret3\r\nX-Serverless-Authorization: Bearer secret4\r\nX-Goog-Api-Key: secret5\r\n\
         X-Api-Key: secret6\r\n",
    )
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(head, "content-type"), Some("message/http"));
    assert!(
        field(head, "proxy-status")
            .unwrap()
            .starts_with("sidentity")
    );
    assert!(
        body.starts_with(&format!("TRACE http://{HOST}/x?y=1 HTTP/1.1\r\n")),
        "{body}"
    );
    assert!(body.contains("\r\nx-seen: here\r\n"), "{body}");
    assert!(!answer.contains("secret"), "{answer}");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn max_forwards_applies_to_options_and_trace_only() {
    let (_metadata, service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let url = format!("http://{HOST}/x");
    let answer = call(sidecar.proxy(), "OPTIONS", &url, "Max-Forwards: 0\r\n").await;
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(field(head, "allow").unwrap().contains("OPTIONS"), "{head}");
    assert_eq!(field(head, "content-length"), Some("0"));
    assert!(service.seen().is_empty());

    for (method, fields, told) in [
        ("OPTIONS", "Max-Forwards: 1\r\n", Some("0")),
        ("OPTIONS", "", None),
        ("GET", "Max-Forwards: 0\r\n", Some("0")),
        ("GET", "Max-Forwards: x\r\n", Some("x")),
        ("DELETE", "Max-Forwards: 7\r\n", Some("7")),
    ] {
        let before = service.seen().len();
        let answer = call(sidecar.proxy(), method, &url, fields).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 "),
            "{method} {fields}: {answer}"
        );
        let seen = service.seen();
        assert_eq!(
            seen[before].header("max-forwards"),
            told,
            "{method} {fields}"
        );
    }

    let before = service.seen().len();
    for (method, fields) in [
        ("TRACE", "Max-Forwards: -1\r\n"),
        ("TRACE", "Max-Forwards: 0\r\nMax-Forwards: 5\r\n"),
        ("OPTIONS", "Max-Forwards: 1, 1\r\n"),
        ("OPTIONS", "Max-Forwards:\r\n"),
        ("TRACE", "Content-Length: 2\r\n\r\nhi"),
        (
            "TRACE",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
        ),
    ] {
        let answer = call(sidecar.proxy(), method, &url, fields).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{method} {fields}: {answer}"
        );
        assert!(answer.contains("http_request_error"), "{answer}");
    }
    assert_eq!(service.seen().len(), before);
}

#[tokio::test]
async fn options_without_a_path_becomes_asterisk_form() {
    for alpn in [b"http/1.1".as_slice(), b"h2"] {
        let service = Service::speaking(&[alpn], |_| Response::new("hello".into())).await;
        let (_metadata, sidecar) =
            started_with(&service, &["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
        for (target, told) in [
            (format!("http://{HOST}"), "*"),
            (format!("http://{HOST}/"), "/"),
            (format!("http://{HOST}?q"), "/?q"),
            (format!("http://{HOST}/p"), "/p"),
        ] {
            let before = service.seen().len();
            let answer = call(sidecar.proxy(), "OPTIONS", &target, "").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
            let seen = &service.seen()[before];
            assert_eq!((&*seen.target, &*seen.host), (told, HOST), "{target}");
            assert!(seen.header("authorization").is_some());
        }
        let answer = call(sidecar.proxy(), "GET", &format!("http://{HOST}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(service.seen().last().unwrap().target, "/");

        // HTTP/2 always uses the asterisk (RFC 9113, 8.3.1).
        let app = app(sidecar.proxy()).await;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(http::uri::Scheme::HTTP);
        uri.authority = Some(http::uri::Authority::from_static(HOST));
        uri.path_and_query = Some(http::uri::PathAndQuery::from_static("*"));
        let sent = Request::builder()
            .method("OPTIONS")
            .uri(http::Uri::from_parts(uri).unwrap())
            .body(())
            .unwrap();
        let (response, _) = open(&app, sent, true).await;
        assert_eq!(soon(response).await.unwrap().status(), 200);
        assert_eq!(service.seen().last().unwrap().target, "*");

        // The same on a route, in both forms.
        let route = sidecar.address("127.0.0.1:0");
        for target in ["*".to_owned(), format!("http://{route}")] {
            let head =
                format!("OPTIONS {target} HTTP/1.1\r\nHost: {route}\r\nConnection: close\r\n\r\n");
            let answer = raw(route, head.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
            assert_eq!(service.seen().last().unwrap().target, "*", "{target}");
        }
    }
}

#[tokio::test]
async fn an_upstream_cannot_set_the_sidecars_proxy_status() {
    let forged = [
        "edge; received-status=502",
        "sidentity; error=dns_error; details=\"a, b\"",
        "\"sidentity\"; error=x, cdn; details=\"sidentity, no member\"",
    ];
    for alpn in [b"http/1.1".as_slice(), b"h2"] {
        let service = Service::speaking(&[alpn], move |_| {
            let mut response = Response::new(Bytes::from("hello"));
            for value in forged {
                let value = HeaderValue::from_static(value);
                response.headers_mut().append("proxy-status", value);
            }
            response
        })
        .await;
        let (_metadata, sidecar) = started_with(&service, &[]).await;
        let mut wire = Wire::open(sidecar.proxy()).await;
        wire.send(format!(
            "GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        ))
        .await;
        let (head, _) = wire.message().await;
        let lines: Vec<_> = head
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("proxy-status:"))
            .filter_map(|line| line.split_once(": "))
            .map(|(_, value)| value.to_owned())
            .collect();
        let left = [forged[0], "cdn; details=\"sidentity, no member\""];
        assert_eq!(lines, left, "{head}");

        let app = app(sidecar.proxy()).await;
        let sent = Request::get(format!("http://{HOST}/")).body(()).unwrap();
        let (response, _) = open(&app, sent, true).await;
        let mut response = soon(response).await.unwrap();
        let lines: Vec<_> = response.headers().get_all("proxy-status").iter().collect();
        assert_eq!(lines, left);
        whole(response.body_mut()).await.unwrap();
    }
}

#[tokio::test]
async fn no_length_is_added_to_a_request_over_http2() {
    let (_metadata, service, sidecar) = started(&["--upstream-http", "2"]).await;
    for method in ["GET", "DELETE", "OPTIONS", "PROPFIND", "POST"] {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(format!(
            "{method} http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n"
        ))
        .await;
        app.message().await;
        let seen = service.seen();
        let seen = seen.last().unwrap();
        assert_eq!(seen.version, http::Version::HTTP_2);
        assert_eq!(seen.header("content-length"), None, "{method}");
    }
}
