//! Invalid HTTP/1.1: ambiguous requests are refused, and bytes hidden in a request never become another request. Each
//! case names its section of RFC 9112.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::started_with;
use super::support::app::raw;
use super::support::metadata::Metadata;
use super::support::service::{Seen, Service};
use super::support::sidecar::Sidecar;

/// A sidecar with a route to an HTTP/1.1 service, where another interpretation of a request would matter.
struct Stage {
    service: Service,
    sidecar: Sidecar,
    _metadata: Metadata,
}

impl Stage {
    async fn new() -> Self {
        let service =
            Service::speaking(&[b"http/1.1"], |seen| Response::new(seen.body.clone())).await;
        let route = ["--route", "127.0.0.1:0=https://svc.a.run.app"];
        let (_metadata, sidecar) = started_with(&service, &route).await;
        Self {
            service,
            sidecar,
            _metadata,
        }
    }

    fn route(&self) -> SocketAddr {
        self.sidecar.address("127.0.0.1:0")
    }

    /// Returns all bytes until the sidecar closes the connection.
    async fn told(&self, address: SocketAddr, request: &str) -> String {
        tokio::time::timeout(Duration::from_secs(30), raw(address, request.as_bytes()))
            .await
            .unwrap_or_else(|_| panic!("the connection stays open after {request:?}"))
    }

    /// Returns the fault if the route does not refuse this request, or if the service gets it.
    async fn refuses(&self, section: &str, what: &str, request: &str) -> Option<String> {
        let before = self.service.seen().len();
        let answer = self.told(self.route(), request).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        let refused = ["closed", "400", "414", "431", "501", "505"].contains(&status)
            && answers(&answer) == usize::from(status != "closed")
            && self.service.seen().len() == before;
        (!refused).then(|| format!("{section} {what}: {answer}"))
    }

    /// Returns the targets that the service has received, in order.
    fn targets(&self) -> Vec<String> {
        let seen = self.service.seen();
        seen.iter().map(|seen| seen.target.clone()).collect()
    }
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.").count()
}

fn bodies(seen: &[Seen]) -> Vec<(&str, &[u8])> {
    seen.iter()
        .map(|seen| (&*seen.target, &*seen.body))
        .collect()
}

/// Bytes that follow a request, in case a reader assumes that it ended early.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn invalid_request_lines_are_refused() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for (section, what, line) in [
        ("2.3", "a version that is not there yet", "GET / HTTP/1.2"),
        ("2.3", "HTTP/2.0 in HTTP/1", "GET / HTTP/2.0"),
        ("2.3", "a version in lower case", "GET / http/1.1"),
        ("3", "no version", "GET /"),
        ("3", "four parts", "GET / x HTTP/1.1"),
        ("3", "nothing but a method", "GET"),
        ("3.1", "an empty method", " / HTTP/1.1"),
        ("3.1", "a method with an at sign", "G@T / HTTP/1.1"),
        ("3.1", "a method with a NUL", "G\0T / HTTP/1.1"),
        ("3.2", "a NUL in the target", "GET /\0 HTTP/1.1"),
        ("3.2", "a tab in the target", "GET /\tx HTTP/1.1"),
        (
            "3.2",
            "a carriage return in the target",
            "GET /\rx HTTP/1.1",
        ),
        ("3.2", "a target without its slash", "GET x/y HTTP/1.1"),
        (
            "3.2.3",
            "host and port with GET",
            "GET localhost:80 HTTP/1.1",
        ),
        ("3.2.4", "an asterisk with GET", "GET * HTTP/1.1"),
        (
            "3.2.3",
            "CONNECT to a route",
            "CONNECT localhost:443 HTTP/1.1",
        ),
    ] {
        let request = format!("{line}\r\nHost: localhost\r\n\r\n{HIDDEN}");
        wrong.extend(stage.refuses(section, what, &request).await);
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(70_000)
    );
    wrong.extend(stage.refuses("3", "a target of 70,000 bytes", &long).await);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn invalid_header_fields_are_refused() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for (section, what, field) in [
        ("5.1", "a space before the colon", "X-A : 1"),
        ("5.1", "a tab before the colon", "X-A\t: 1"),
        ("5.1", "no colon", "X-A"),
        ("5.1", "no name", ": 1"),
        ("5.1", "a control character in a name", "X\x01A: 1"),
        ("5.1", "a NUL in a name", "X\0A: 1"),
        ("5.1", "an umlaut in a name", "Ä: 1"),
        ("5.2", "a folded line", "X-A: 1\r\n continued"),
        ("5.2", "a line folded with a tab", "X-A: 1\r\n\tcontinued"),
        ("5.5", "a NUL in a value", "X-A: 1\x002"),
        ("5.5", "a control character in a value", "X-A: 1\x012"),
        ("5.5", "DEL in a value", "X-A: 1\x7f2"),
        ("2.2", "a lone carriage return in a value", "X-A: 1\rX-B: 2"),
        ("3.2", "a second Host", "Host: localhost"),
        ("3.2", "a Host with user-info", "Host: a@localhost"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n{HIDDEN}");
        wrong.extend(stage.refuses(section, what, &request).await);
    }
    for (section, what, request) in [
        ("3.2", "no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("3.2", "an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (
            "3.2",
            "an invalid Host",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        ),
        (
            "3.2.2",
            "a Host that is not the target's",
            "GET http://localhost/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        ),
        (
            "2.2",
            "a space before the first field",
            "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        ),
    ] {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        wrong.extend(stage.refuses(section, what, &request).await);
    }
    let many = "X-A: 1\r\n".repeat(300);
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    wrong.extend(stage.refuses("5", "300 fields", &request).await);
    let large = "x".repeat(1024 * 1024);
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {large}\r\n\r\n");
    wrong.extend(stage.refuses("5", "a field of a mebibyte", &request).await);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for (section, what, fields) in [
        (
            "6.1",
            "chunked and more",
            "Transfer-Encoding: chunked, gzip",
        ),
        ("6.1", "an unknown coding", "Transfer-Encoding: xchunked"),
        ("6.1", "identity", "Transfer-Encoding: identity"),
        ("6.1", "a quoted coding", "Transfer-Encoding: \"chunked\""),
        (
            "6.1",
            "a coding after a vertical tab",
            "Transfer-Encoding: \x0bchunked",
        ),
        ("6.1", "an empty coding", "Transfer-Encoding:"),
        (
            "6.1",
            "chunked twice",
            "Transfer-Encoding: chunked, chunked",
        ),
        (
            "6.1",
            "an unknown transfer coding",
            "Transfer-Encoding: gzip, chunked",
        ),
        (
            "6.1",
            "chunked on one line, identity on the next",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "6.1",
            "identity on one line, chunked on the next",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        (
            "6.1",
            "a coding after a space in the name",
            "Transfer-Encoding : chunked",
        ),
        (
            "6.1",
            "a coding on a folded line",
            "Transfer-Encoding:\r\n chunked",
        ),
        (
            "6.2",
            "two lengths",
            "Content-Length: 5\r\nContent-Length: 6",
        ),
        ("6.2", "two lengths on a line", "Content-Length: 5, 6"),
        ("6.2", "a length with a plus", "Content-Length: +5"),
        ("6.2", "a length with a minus", "Content-Length: -5"),
        ("6.2", "a length in hexadecimal", "Content-Length: 0x5"),
        ("6.2", "a length with a fraction", "Content-Length: 5.0"),
        ("6.2", "an empty length", "Content-Length:"),
        (
            "6.2",
            "a length over 64 bits",
            "Content-Length: 18446744073709551621",
        ),
        ("6.2", "a length with an underscore", "Content-Length: 0_5"),
    ] {
        for method in ["POST", "GET"] {
            let request = format!(
                "{method} / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{HIDDEN}"
            );
            wrong.extend(stage.refuses(section, what, &request).await);
        }
    }
    let old = "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    wrong.extend(stage.refuses("6.1", "chunks in HTTP/1.0", old).await);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `Transfer-Encoding` overrides a length, which is not forwarded, and the connection ends (6.1, 6.3).
#[tokio::test]
async fn chunked_coding_overrides_a_content_length() {
    let stage = Stage::new().await;
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
    ] {
        for method in ["POST", "GET"] {
            let before = stage.service.seen().len();
            let request = format!(
                "{method} /first HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{HIDDEN}"
            );
            let answer = stage.told(stage.route(), &request).await;
            assert!(answers(&answer) <= 1, "{answer}");
            for seen in &stage.service.seen()[before..] {
                assert_eq!((&*seen.target, &*seen.body), ("/first", b"hello" as &[u8]));
                assert_eq!(seen.header("content-length"), None);
            }
        }
    }
}

/// RFC 9112, 7.1 and 7.1.1.
#[tokio::test]
async fn invalid_chunks_end_the_connection() {
    let stage = Stage::new().await;
    let extension = "x".repeat(100_000);
    let long = format!("5;{extension}\r\nhello\r\n0\r\n\r\n");
    for (what, body) in [
        ("a size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size after a space", " 5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        (
            "a size over 64 bits",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("a chunk longer than told", "4\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without its end", "5\r\nhello0\r\n\r\n"),
        (
            "a size that ends with a carriage return alone",
            "5\rhello\r\n0\r\n\r\n",
        ),
        (
            "a size that ends with a line feed alone",
            "5\nhello\r\n0\r\n\r\n",
        ),
        (
            "a line feed in an extension",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
        ),
        ("100,000 bytes of extension", &*long),
    ] {
        let request = format!(
            "POST /first HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}"
        );
        let answer = stage.told(stage.route(), &request).await;
        assert!(answers(&answer) <= 1, "{what}: {answer}");
        assert!(!answer.contains("hello"), "{what}: {answer}");
    }
    for seen in stage.service.seen() {
        assert_eq!((&*seen.target, &*seen.body), ("/first", b"" as &[u8]));
    }
}

/// RFC 9112, 6.3 and 11.2.
#[tokio::test]
async fn a_request_inside_a_body_stays_a_body() {
    let stage = Stage::new().await;
    let length = HIDDEN.len();
    for fields in [
        format!("Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!(
            "transfer-encoding: Chunked\r\n\r\n{length:X};a=b;c\r\n{HIDDEN}\r\n000\r\nX-Sum: 1\r\n\r\n"
        ),
    ] {
        for method in ["POST", "GET", "DELETE"] {
            let before = stage.service.seen().len();
            let request = format!(
                "{method} /first HTTP/1.1\r\nHost: localhost\r\n{fields}\
                 GET /second HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            stage.told(stage.route(), &request).await;
            let seen = stage.service.seen();
            assert_eq!(
                bodies(&seen[before..]),
                [("/first", HIDDEN.as_bytes()), ("/second", b"")],
                "{request}"
            );
        }
    }
}

/// RFC 9112, 7.1.2.
#[tokio::test]
async fn trailers_do_not_become_headers() {
    let stage = Stage::new().await;
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        5\r\nhello\r\n0\r\nHost: evil.test\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\n\
        Authorization: Bearer trailing\r\nX-Evil: 1\r\n\r\n";
    stage.told(stage.route(), request).await;
    let seen = stage.service.only();
    assert_eq!(
        (&*seen.host, &*seen.body),
        ("svc.a.run.app", b"hello" as &[u8])
    );
    assert_eq!(seen.header("x-evil"), None);
    let authorization = seen.header("authorization").unwrap();
    assert!(authorization.starts_with("Bearer ey"), "{authorization}");
}

#[tokio::test]
async fn unusual_but_valid_requests_are_served() {
    let stage = Stage::new().await;
    let rest = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (section, what, request, target) in [
        (
            "2.2",
            "an empty line first",
            format!("\r\nGET /a {rest}"),
            "/a",
        ),
        (
            "2.2",
            "lines that end with a line feed alone",
            format!("GET /b {rest}").replace('\r', ""),
            "/b",
        ),
        (
            "2.3",
            "HTTP/1.0 without Host",
            "GET /c HTTP/1.0\r\n\r\n".to_owned(),
            "/c",
        ),
        (
            "3.2.2",
            "an absolute target",
            format!("GET http://localhost/d {rest}"),
            "/d",
        ),
        ("3.2.4", "an asterisk", format!("OPTIONS * {rest}"), "*"),
        (
            "3.2",
            "a target with odd characters",
            format!("GET /e?{{x}}|^`' {rest}"),
            "/e?{x}|^`'",
        ),
        (
            "5.1",
            "a name in any case, a value with white space",
            format!("GET /f HTTP/1.1\r\nx-A: \t 1 \t\r\n{}", &rest[10..]),
            "/f",
        ),
    ] {
        let before = stage.service.seen().len();
        let answer = stage.told(stage.route(), &request).await;
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains(" 200 "),
            "{section} {what}: {answer}"
        );
        let seen = stage.service.seen();
        assert_eq!(bodies(&seen[before..]), [(target, b"" as &[u8])], "{what}");
    }
    // Methods are case-sensitive, so this is another method of the service (RFC 9110, 9.1).
    stage.told(stage.route(), &format!("get /g {rest}")).await;
    assert_eq!(stage.service.seen().last().unwrap().method.as_str(), "get");
}

/// RFC 9112, 9.3.2.
#[tokio::test]
async fn pipelined_calls_are_answered_in_their_order() {
    let stage = Stage::new().await;
    let mut requests = String::new();
    for number in 0..20 {
        let body = format!("body {number}");
        let length = body.len();
        requests += &format!(
            "POST /{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }
    requests += "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = stage.told(stage.route(), &requests).await;
    assert_eq!(answers(&answer), 21);
    let order: Vec<_> = (0..20)
        .map(|n| answer.find(&format!("body {n}H")).unwrap())
        .collect();
    assert!(order.is_sorted());
    let expected = (0..20).map(|n| format!("/{n}"));
    assert_eq!(
        stage.targets(),
        expected.chain(["/last".to_owned()]).collect::<Vec<_>>()
    );
}

/// RFC 9112, 3.2, 5.1, 5.2 and 6.1.
#[tokio::test]
async fn the_forward_proxy_parses_requests_as_strictly() {
    let stage = Stage::new().await;
    for fields in [
        "Host: svc.a.run.app\r\nTransfer-Encoding: gzip, chunked",
        "Host: svc.a.run.app\r\nTransfer-Encoding : chunked",
        "Host: svc.a.run.app\r\nX: a\r\n b",
        "Host: svc.a.run.app, evil.test",
        "Host: svc.a.run.app:80:80",
        "Host: svc.a.run.app\r\nHost: svc.a.run.app",
    ] {
        let request = format!(
            "POST http://svc.a.run.app/ HTTP/1.1\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let answer = stage.told(stage.sidecar.proxy(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
    assert!(stage.service.seen().is_empty());
}

/// RFC 9113, 8.3.1.
#[tokio::test]
async fn user_info_in_an_authority_of_http2_is_refused() {
    let stage = Stage::new().await;
    for (address, authority) in [
        (stage.route(), "user@localhost"),
        (stage.sidecar.proxy(), "user@svc.a.run.app"),
    ] {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("http://{authority}/")).body(Full::<Bytes>::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 400, "{authority}");
    }
    assert!(stage.service.seen().is_empty());
}
