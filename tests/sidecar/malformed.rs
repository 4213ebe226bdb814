//! Requests that cannot be parsed: each gets an error, and is counted and logged.

use serde_json::Value;

use super::http1::between;
use super::started;
use super::support::app::{self, raw, text};
use super::support::hostile::Hostile;
use super::support::sidecar::Sidecar;
use super::support::wire::{Wire, field};

/// Returns the status and Proxy-Status of a response, after a check that its body agrees.
fn told(answer: &str) -> (u16, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(
        field(head, "content-type"),
        Some("application/problem+json"),
        "{head}"
    );
    assert_eq!(field(head, "connection"), Some("close"), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status);
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    (status, field(head, "proxy-status").unwrap().to_owned())
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: svc.a.run.app\r\n{fields}\r\n").into_bytes()
}

/// Returns malformed requests, each with the status of its response.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let url = "http://svc.a.run.app";
    let with = |byte: u8| {
        let mut request = get(&format!("{url}/?q=@"), "");
        let at = request.iter().position(|b| *b == b'@').unwrap();
        request[at] = byte;
        request
    };
    vec![
        (
            "a quote in the query",
            get(&format!("{url}/?q=\"a\""), ""),
            400,
        ),
        ("a less-than sign", get(&format!("{url}/?q=<a>"), ""), 400),
        ("no UTF-8", with(0xff), 400),
        ("a control byte", with(1), 400),
        (
            "a URI of 70 kB",
            get(&format!("{url}/{}", "a".repeat(70_000)), ""),
            414,
        ),
        (
            "300 fields",
            get(&format!("{url}/"), &"X-A: b\r\n".repeat(300)),
            431,
        ),
        (
            "a head of 1 MB",
            get(
                &format!("{url}/"),
                &format!("X-A: {}\r\n", "a".repeat(1_000_000)),
            ),
            431,
        ),
        ("a bad name", get(&format!("{url}/"), "X A: b\r\n"), 400),
        (
            "a bad length",
            get(&format!("{url}/"), "Content-Length: x\r\n"),
            400,
        ),
        (
            "a folded field",
            get(&format!("{url}/"), "X-A: b\r\n c\r\n"),
            400,
        ),
        (
            "a bad version",
            b"GET http://svc.a.run.app/ HTTP/3.0\r\n\r\n".to_vec(),
            400,
        ),
        (
            "a bad method",
            b"G@T http://svc.a.run.app/ HTTP/1.1\r\n\r\n".to_vec(),
            400,
        ),
        ("no target", b"GET\r\n\r\n".to_vec(), 400),
        (
            "a length of 2^64-1",
            get(
                &format!("{url}/"),
                "Content-Length: 18446744073709551615\r\n",
            ),
            400,
        ),
        (
            "a length of 2^64",
            get(
                &format!("{url}/"),
                "Content-Length: 18446744073709551616\r\n",
            ),
            400,
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
        ),
    ]
}

#[tokio::test]
async fn an_unparsable_request_is_answered_counted_and_logged() {
    let (_metadata, service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let mut refused = 0;
    for (address, listener) in [
        (sidecar.proxy(), "proxy"),
        (sidecar.address("127.0.0.1:0"), "127.0.0.1:0"),
    ] {
        let mut by_status = [(400, 0), (414, 0), (431, 0)];
        for (what, request, status) in malformed() {
            let before = sidecar.log().len();
            // At most ten a second are logged.
            let line = loop {
                let answer = raw(address, &request).await;
                let (answered, proxy_status) = told(&answer);
                assert_eq!(answered, status, "{what}: {answer}");
                assert!(
                    proxy_status.starts_with("sidentity; error=http_request_error; details=\""),
                    "{what}: {proxy_status}"
                );
                refused += 1;
                by_status.iter_mut().find(|(s, _)| *s == status).unwrap().1 += 1;
                let mut since = sidecar.log().into_iter().skip(before);
                // A log line of the previous request may be late.
                if let Some(line) = since.find(|line| line["httpRequest"]["status"] == status) {
                    break line;
                }
                assert!(refused < 100_000, "{what}: not logged");
            };
            assert_eq!(line["listener"], listener, "{what}: {line}");
            assert_eq!(line["httpRequest"]["status"], status, "{what}: {line}");
            assert!(
                line["detail"].is_string() && line["advice"].is_string(),
                "{line}"
            );
        }
        for (status, count) in by_status {
            let line = format!(
                "sidentity_requests_total{{code=\"{status}\",credential=\"none\",listener=\"{listener}\"}} {count}"
            );
            sidecar.counted(&line).await;
        }
    }
    let line = format!("sidentity_proxy_errors_total{{error=\"http_request_error\"}} {refused}");
    sidecar.counted(&line).await;
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn an_unparsable_request_gets_the_reason() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let url = "http://svc.a.run.app/";
    let lengths = [
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999",
        "1e3",
        "-1",
        "",
    ];
    for length in lengths {
        for more in [String::new(), "X-A: b\r\n".repeat(50)] {
            let fields = format!("{more}Content-Length: {length}\r\n");
            let answer = raw(sidecar.proxy(), &get(url, &fields)).await;
            assert_eq!(told(&answer).0, 400, "{length}: {answer}");
            assert!(
                answer.to_ascii_lowercase().contains("content-length is")
                    || answer.contains("invalid content-length"),
                "{length}: {answer}"
            );
        }
    }
    for simple in ["GET /\r\n\r\n", "GET http://svc.a.run.app/\r\n\r\n"] {
        let answer = raw(sidecar.proxy(), simple.as_bytes()).await;
        assert_eq!(told(&answer).0, 400, "{answer}");
        assert!(answer.contains("no HTTP version"), "{answer}");
    }
}

/// A client does so with `HTTPS_PROXY=https://localhost:3128`, or `https://` in the URL of a route.
#[tokio::test]
async fn a_tls_client_on_a_plain_port_gets_an_explanation() {
    let (_metadata, _service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://svc.a.run.app"]).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for address in [sidecar.proxy(), sidecar.address("127.0.0.1:0")] {
        let answer = raw(address, hello).await;
        assert_eq!(told(&answer).0, 400, "{answer}");
        let title = "The client speaks TLS to a plain HTTP port";
        assert!(
            answer.contains(title) && answer.contains("http://"),
            "{answer}"
        );
    }
    let line = sidecar
        .logged(|line| line["detail"].to_string().contains("speaks TLS"))
        .await;
    assert!(line["advice"].to_string().contains("http://"), "{line}");
    let line = line.to_string();
    assert!(
        !line.contains("two ways") && !line.contains("invalid HTTP method"),
        "{line}"
    );
}

#[tokio::test]
async fn bytes_that_are_not_a_request_are_not_called_ambiguous() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    for (request, title) in [
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "The request has no absolute URL",
        ),
        (
            "G@T http://svc.a.run.app/ HTTP/1.1\r\n\r\n",
            "The request cannot be parsed",
        ),
        (
            "GET http://svc.a.run.app/ HTTP/1.1\r\n\r\n",
            "The request is ambiguous",
        ),
    ] {
        let answer = raw(sidecar.proxy(), request.as_bytes()).await;
        assert_eq!(told(&answer).0, 400, "{answer}");
        assert!(answer.contains(title), "{request}: {answer}");
    }
    let line = sidecar
        .logged(|line| line["detail"].to_string().contains("absolute URLs"))
        .await;
    assert!(line["advice"].to_string().contains("HTTP_PROXY"), "{line}");
}

#[tokio::test]
async fn requests_before_a_malformed_one_are_answered() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let good = get("http://svc.a.run.app/", "");
    let bad = get("http://svc.a.run.app/?\"", "");
    // The requests are sent one after the other, and in one piece.
    for together in [false, true] {
        let mut wire = Wire::open(sidecar.proxy()).await;
        if together {
            wire.send([&good[..], &good, &bad].concat()).await;
        } else {
            wire.send(&good).await;
        }
        assert_eq!(wire.message().await.1, "hello");
        if together {
            assert_eq!(wire.message().await.1, "hello");
        } else {
            wire.send(&bad).await;
        }
        assert_eq!(told(&wire.rest().await).0, 400);
    }
}

#[tokio::test]
async fn an_upstreams_bare_400_passes_unchanged() {
    let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let upstream = Hostile::always(bare).await;
    let metadata = super::support::metadata::Metadata::start().await;
    let sidecar = Sidecar::start(&metadata, &[]).await;
    let at = upstream.address;
    for connection in ["keep-alive", "close"] {
        let mut wire = Wire::open(sidecar.proxy()).await;
        wire.send(format!(
            "GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nConnection: {connection}\r\n\r\n"
        ))
        .await;
        let (head, body) = wire.message().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert_eq!(
            (body.as_str(), field(&head, "proxy-status")),
            ("", None),
            "{head}"
        );
        if connection == "close" {
            assert_eq!(wire.rest().await, "");
        }
    }
    sidecar
        .counted("sidentity_proxy_errors_total{error=\"http_request_error\"} 0")
        .await;
}

#[tokio::test]
async fn endless_malformed_requests_do_not_fill_the_log() {
    let (_metadata, _service, sidecar) = started(&["--log-level", "info"]).await;
    let began = std::time::Instant::now();
    let before = sidecar.log().len();
    let bad = get("http://svc.a.run.app/?\"", "");
    for _ in 0..150 {
        raw(sidecar.proxy(), &bad).await;
        raw(sidecar.admin(), &bad).await;
    }
    let line = "sidentity_proxy_errors_total{error=\"http_request_error\"} 300";
    sidecar.counted(line).await;
    // The next line has the number of suppressed lines.
    let suppressed = loop {
        raw(sidecar.proxy(), &bad).await;
        let log = sidecar.log();
        let counts = log.iter().filter_map(|line| line["suppressed"].as_u64());
        let suppressed: u64 = counts.sum();
        if suppressed > 0 {
            break suppressed;
        }
        assert!(began.elapsed().as_secs() < 20, "{}", log.len() - before);
    };
    let lines = sidecar.log().len() - before;
    let most = 12 * (began.elapsed().as_secs() + 2);
    assert!(lines as u64 <= most, "{lines} lines, {suppressed} left out");
}

#[tokio::test]
async fn a_password_in_connect_or_host_is_not_shown() {
    const PASSWORD: &str = "SECRETPW";
    let args = ["--route", "127.0.0.1:0=http://127.0.0.1:1"];
    let (_port, _metadata, sidecar, _app) = between(&args).await;
    let route = sidecar.address("127.0.0.1:0");
    let proxy = sidecar.proxy();
    for (at, line, host) in [
        (proxy, "CONNECT u:SECRETPW@a.test:443", "a.test:443"),
        (proxy, "CONNECT a.test:443", "u:SECRETPW@a.test:443"),
        (proxy, "CONNECT a.test:443", "u:SECRETPW@a.test"),
        (proxy, "GET http://a.test/", "u:SECRETPW@a.test"),
        (proxy, "GET http://a.test/", "SECRETPW@a.test"),
        (proxy, "GET http://u:SECRETPW@a..b/", "a.test"),
        (proxy, "GET http://a.test/", "u:SECRETPW%40a.test"),
        (route, "GET /", "u:SECRETPW@localhost"),
        (route, "GET /", "u:SECRETPW%40localhost"),
        (route, "GET http://u:SECRETPW@a..b/", "localhost"),
    ] {
        let mut app = Wire::open(at).await;
        app.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let (head, body) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{line} {host}: {head}");
        assert!(!head.contains(PASSWORD), "{line} {host}: {head}");
        assert!(!body.contains(PASSWORD), "{line} {host}: {body}");
    }
    sidecar
        .counted(
            "sidentity_requests_total{code=\"400\",credential=\"none\",listener=\"127.0.0.1:0\"} 3",
        )
        .await;
    for path in ["/", "/status"] {
        let page = app::get(sidecar.admin(), path).await;
        assert!(!text(&page).contains(PASSWORD), "{}", text(&page));
    }
    let log = sidecar.log();
    let shown = log.iter().find(|line| line.to_string().contains(PASSWORD));
    assert_eq!(shown, None);
}
