//! Metrics: labels have closed sets of values for any input.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::http1::{between, request};
use super::support::app::{get, raw, send, text};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::streams::Streams;
use super::support::wire::Wire;
use super::{started, started_with};

/// Returns names and labels of all series.
async fn series(sidecar: &Sidecar) -> BTreeSet<String> {
    let metrics = get(sidecar.admin(), "/metrics").await;
    let lines = text(&metrics).lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

#[tokio::test]
async fn hostile_methods_hosts_and_paths_add_no_metric_series() {
    let service = Service::answering(|seen| {
        let code = seen.target.trim_start_matches('/').parse().unwrap_or(200);
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response
    })
    .await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    let call = |method: String, url: String| {
        let host = url.split('/').nth(2).unwrap().to_owned();
        let request = Request::builder().method(&*method).uri(url);
        send(
            sidecar.proxy(),
            request.header("host", host).body(Bytes::new()).unwrap(),
        )
    };
    call("GET".into(), "http://a.example.com/200".into()).await;
    call("GET".into(), "http://storage.googleapis.com/200".into()).await;
    let is_code = |line: &&String| line.starts_with("sidentity_requests_total");
    let before = series(&sidecar).await;
    for round in 0..40 {
        let label = format!("evil{round}");
        call(
            format!("M{round}"),
            format!("http://{label}.example.com/{label}"),
        )
        .await;
        call("GET".into(), format!("http://{label}.googleapis.com/200")).await;
    }
    // These bytes are not a request.
    for nonsense in [
        "GET http://evil.example.com/ HTTP/9.9\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\nhost: evil\r\n\r\n",
    ] {
        raw(sidecar.proxy(), nonsense.as_bytes()).await;
    }
    for code in [299, 499, 599, 600, 799, 999] {
        call(
            "GET".into(),
            format!("http://storage.googleapis.com/{code}"),
        )
        .await;
    }
    sidecar
        .counted(r#"sidentity_requests_total{code="599",credential="access",listener="proxy"} 1"#)
        .await;
    let after = series(&sidecar).await;
    let (codes, new): (Vec<_>, Vec<_>) = after.difference(&before).partition(is_code);
    assert_eq!(new, Vec::<&String>::new());
    // Each status has one code. Values that are not an HTTP status share one.
    assert!(codes.len() <= 8, "{codes:#?}");
    let all: String = after.into_iter().collect();
    for word in ["evil", "googleapis", "example", "M1"] {
        assert!(!all.contains(word), "{word}");
    }
}

#[tokio::test]
async fn exactly_the_documented_metric_families_exist() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    super::support::app::proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    sidecar
        .counted(r#"sidentity_requests_total{code="200",credential="access",listener="proxy"} 1"#)
        .await;
    let metrics = get(sidecar.admin(), "/metrics").await;
    let types = text(&metrics)
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let found: Vec<&str> = types
        .filter(|line| line.starts_with("sidentity_"))
        .collect();
    assert_eq!(
        found,
        [
            "sidentity_build_info gauge",
            "sidentity_connections gauge",
            "sidentity_proxy_errors_total counter",
            "sidentity_request_duration_seconds histogram",
            "sidentity_requests_in_flight gauge",
            "sidentity_requests_total counter",
            "sidentity_skipped_total counter",
            "sidentity_token_expiry_timestamp_seconds gauge",
            "sidentity_token_fetch_duration_seconds histogram",
            "sidentity_token_fetches_total counter",
            "sidentity_token_lookups_total counter",
            "sidentity_upstream_auth_rejected_total counter",
            "sidentity_upstream_connections gauge",
            "sidentity_upstream_connects_total counter",
        ]
    );
    for bound in ["0.0001", "60"] {
        let bucket = format!(
            r#"sidentity_request_duration_seconds_bucket{{credential="access",listener="proxy",le="{bound}"}} "#
        );
        assert!(text(&metrics).contains(&bucket), "{bucket}");
    }
    assert!(text(&metrics).contains("\nprocess_start_time_seconds 1"));
}

#[tokio::test]
async fn a_response_with_trailers_is_not_counted_as_cancelled() {
    let (port, _metadata, sidecar, mut app) = between(&[]).await;
    let mut upstream = None;
    for (count, (fields, announced)) in [
        ("", ""),
        ("TE: trailers\r\nConnection: TE\r\n", ""),
        ("", "Trailer: X-T\r\n"),
        ("TE: trailers\r\nConnection: TE\r\n", "Trailer: X-T\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        app.send(request(&port, "GET /", fields)).await;
        let wire = match &mut upstream {
            Some(wire) => wire,
            none => none.insert(port.accept().await),
        };
        wire.head().await;
        let answer = format!("HTTP/1.1 200 OK\r\n{announced}Transfer-Encoding: chunked\r\n\r\n");
        wire.send(answer + "2\r\nok\r\n0\r\nX-T: 1\r\n\r\n").await;
        app.head().await;
        assert_eq!(app.chunked().await.0, "ok");
        let line = "sidentity_requests_total{code=\"200\",credential=\"none\",listener=\"proxy\"}";
        sidecar.counted(&format!("{line} {}", count + 1)).await;
    }
}

#[tokio::test]
async fn a_response_without_content_whose_stream_ends_late_is_not_counted_as_cancelled() {
    let upstream = Streams::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let flags = upstream.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&metadata, &flags).await;
    let mut app = Wire::open(sidecar.proxy()).await;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        app.send(format!(
            "{method} http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n"
        ))
        .await;
        let mut stream = upstream.next().await;
        let response = Response::builder().status(status).body(()).unwrap();
        let mut body = stream.begin(response);
        app.head().await;
        let line = format!(
            "sidentity_requests_total{{code=\"{status}\",credential=\"access\",listener=\"proxy\"}} 1"
        );
        sidecar.counted(&line).await;
        let _ = body.send_data(Bytes::new(), true);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_counted_by_its_error() {
    let (port, _metadata, sidecar, _app) = between(&[]).await;
    for (body, error, count) in [
        ("Content-Length: 5\r\n\r\nok", "connection_terminated", 1),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nok",
            "connection_terminated",
            2,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nxx\r\n",
            "http_protocol_error",
            1,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
            "http_protocol_error",
            2,
        ),
    ] {
        let mut app = Wire::open(sidecar.proxy()).await;
        app.send(request(&port, "GET /", "")).await;
        let mut upstream = port.accept().await;
        upstream.head().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{body}")).await;
        // An invalid chunk is the error, although the connection stays open.
        let open = (error == "http_protocol_error").then_some(upstream);
        app.rest().await;
        let line = format!("sidentity_proxy_errors_total{{error=\"{error}\"}} {count}");
        sidecar.counted(&line).await;
        let logged = sidecar
            .log()
            .iter()
            .filter(|line| line["error"] == error)
            .count();
        assert_eq!(logged, count, "{:#?}", sidecar.log());
        drop(open);
    }
}
