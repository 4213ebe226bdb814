//! Probes, metrics, explanations.

use bytes::Bytes;
use http::Request;

use super::support::app::{get, json, proxied, raw, send, text};
use super::support::metadata::{Answer, Gate, Kind, Metadata};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::streams::Streams;
use super::{beside, started};

const ROUTE: [&str; 2] = ["--route", "127.0.0.1:0=https://svc.a.run.app"];

#[tokio::test]
async fn readiness_waits_for_the_tokens_of_routes_and_names_missing_ones() {
    let metadata = Metadata::start().await;
    let gate = Gate::new();
    metadata.script(
        Kind::Identity,
        [
            Answer::status(404, "no account"),
            Answer::identity(3600).behind(&gate),
        ],
    );
    let sidecar = beside(&metadata, &Service::start().await, &ROUTE).await;
    assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);
    assert_eq!(get(sidecar.admin(), "/liveness").await.status(), 200);
    metadata.arrived(Kind::Identity, 1).await;
    sidecar.logged(|line| line["severity"] == "WARNING").await;
    let response = get(sidecar.admin(), "/readiness").await;
    assert_eq!(response.status(), 503);
    assert!(
        text(&response).contains("no account"),
        "{}",
        text(&response)
    );
    gate.open();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while get(sidecar.admin(), "/readiness").await.status() != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn the_liveness_probe_refreshes_stale_tokens() {
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Identity,
        [Answer::identity(100), Answer::identity(3600)],
    );
    let sidecar = beside(&metadata, &Service::start().await, &ROUTE).await;
    metadata.arrived(Kind::Identity, 1).await;
    sidecar
        .logged(|line| line["message"] == "token: fetched a new one")
        .await;
    assert_eq!(get(sidecar.admin(), "/liveness").await.status(), 200);
    metadata.arrived(Kind::Identity, 2).await;
}

#[tokio::test]
async fn the_admin_port_accepts_only_its_own_names() {
    let (_metadata, _service, sidecar) = started(&["--allowed-host", "admin.example.com"]).await;
    let admin = sidecar.admin();
    for (path, host, status) in [
        ("/metrics", "localhost", 200),
        ("/metrics", "10.128.0.7:9090", 200),
        ("/metrics", "[2001:db8::7]:9090", 200),
        ("/", "0.0.0.0", 200),
        ("/metrics", "admin.example.com", 200),
        ("/metrics", "10.128.0.7.evil.test", 421),
        ("/metrics", "evil.test", 421),
        ("/explain?url=https://x.run.app", "evil.test", 421),
        ("/", "evil.test", 421),
        ("/liveness", "evil.test", 200),
        ("/nothing", "localhost", 404),
        ("/quitquitquit", "localhost", 404),
    ] {
        let request = Request::get(path).header("host", host).body(Bytes::new());
        assert_eq!(
            send(admin, request.unwrap()).await.status(),
            status,
            "{path} {host}"
        );
    }
    let two = Request::get("/metrics")
        .header("host", "localhost")
        .header("host", "evil.test")
        .body(Bytes::new());
    assert_eq!(send(admin, two.unwrap()).await.status(), 400);
    let cross = Request::get("/metrics")
        .header("host", "localhost")
        .header("origin", "https://evil.test")
        .body(Bytes::new());
    assert_eq!(send(admin, cross.unwrap()).await.status(), 403);
    for (site, origin, status) in [
        ("cross-site", "https://admin.example.com", 200),
        ("cross-site", "https://evil.test", 403),
        ("same-origin", "https://evil.test", 403),
    ] {
        let request = Request::get("/metrics")
            .header("host", "localhost")
            .header("sec-fetch-site", site)
            .header("origin", origin)
            .body(Bytes::new());
        let response = send(admin, request.unwrap()).await;
        assert_eq!(response.status(), status, "{site} {origin}");
    }
}

/// RFC 9112, 3.2.
#[tokio::test]
async fn the_admin_port_refuses_a_request_without_a_valid_host() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    for (path, rest, status) in [
        ("/metrics", "HTTP/1.1\r\n", 400),
        ("/liveness", "HTTP/1.1\r\n", 400),
        ("/metrics", "HTTP/1.1\r\nHost:\r\n", 400),
        ("/metrics", "HTTP/1.1\r\nHost: \r\n", 400),
        ("/metrics", "HTTP/1.1\r\nHost: a b\r\n", 400),
        (
            "/metrics",
            "HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
            400,
        ),
        ("http://localhost/metrics", "HTTP/1.1\r\n", 400),
        ("/metrics", "HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("/metrics", "HTTP/1.0\r\n", 200),
        ("/liveness", "HTTP/1.0\r\n", 200),
    ] {
        let request = format!("GET {path} {rest}Connection: close\r\n\r\n");
        let answer = raw(sidecar.admin(), request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("{} {status} ", &rest[..8])),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_page_opened_by_an_ip_address_may_call_its_own_admin_port() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    for (host, origin, site, status) in [
        ("10.1.2.3:9090", "http://10.1.2.3:9090", "same-origin", 200),
        // Browsers send no `Sec-Fetch-Site` over plain HTTP to an address.
        ("10.1.2.3:9090", "http://10.1.2.3:9090", "", 200),
        ("10.1.2.3", "http://10.1.2.3:80", "same-origin", 200),
        ("[2001:db8::7]:9090", "http://[2001:db8::7]:9090", "", 200),
        ("10.1.2.3:9090", "http://10.1.2.3:9090", "cross-site", 403),
        ("10.1.2.3:9090", "http://10.1.2.3:9091", "same-origin", 403),
        ("10.1.2.3:9090", "http://10.1.2.4:9090", "same-origin", 403),
        ("10.1.2.3:9090", "https://evil.test", "same-origin", 403),
        (
            "evil.test:9090",
            "http://evil.test:9090",
            "same-origin",
            421,
        ),
    ] {
        let mut request = Request::get("/status")
            .header("host", host)
            .header("origin", origin);
        if !site.is_empty() {
            request = request.header("sec-fetch-site", site);
        }
        let response = send(sidecar.admin(), request.body(Bytes::new()).unwrap()).await;
        assert_eq!(response.status(), status, "{host} {origin} {site}");
    }
}

#[tokio::test]
async fn refusals_of_the_admin_port_are_counted_and_logged_at_a_limited_rate() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    for _ in 0..20 {
        let request = Request::get("/metrics").header("host", "evil.test");
        let response = send(sidecar.admin(), request.body(Bytes::new()).unwrap()).await;
        assert_eq!(response.status(), 421);
    }
    let cross = Request::get("/metrics")
        .header("host", "localhost")
        .header("origin", "https://evil.test");
    let response = send(sidecar.admin(), cross.body(Bytes::new()).unwrap()).await;
    assert_eq!(response.status(), 403);
    sidecar
        .counted("sidentity_proxy_errors_total{error=\"http_request_error\"} 20")
        .await;
    sidecar
        .counted("sidentity_proxy_errors_total{error=\"http_request_denied\"} 1")
        .await;
    let refused = |line: &serde_json::Value| line["message"] == "the admin port refused a request";
    let line = sidecar.logged(refused).await;
    assert_eq!(
        (&line["listener"], &line["status"]),
        (&"admin".into(), &421.into())
    );
    assert!(
        line["detail"].to_string().contains("--allowed-host"),
        "{line}"
    );
    // There is at most one line in 5 s.
    let lines = sidecar.log();
    assert!(lines.iter().filter(|line| refused(line)).count() < 10);
}

#[tokio::test]
async fn the_explain_endpoint_shows_what_a_call_would_get() {
    let (metadata, _service, sidecar) = started(&[]).await;
    let url = "/explain?url=https%3A%2F%2Fcanary---svc-1.us-central1.run.app%2Fx%3Fy";
    let explained = json(&get(sidecar.admin(), url).await);
    assert_eq!(explained["credential"], "id");
    assert_eq!(explained["audience"], "https://svc-1.us-central1.run.app");
    for key in [
        "url",
        "destination",
        "scopes",
        "header",
        "rule",
        "how",
        "notes",
    ] {
        assert!(!explained[key].is_null(), "{key}: {explained}");
    }
    assert_eq!(metadata.count(Kind::Identity), 0, "no token is fetched");
    assert_eq!(get(sidecar.admin(), "/explain?url=%00").await.status(), 400);
    assert_eq!(get(sidecar.admin(), "/explain").await.status(), 400);
}

#[tokio::test]
async fn every_metric_family_is_counted() {
    let (_metadata, _service, sidecar) =
        started(&["--rule", "denied.example.com=deny", ROUTE[0], ROUTE[1]]).await;
    get(sidecar.address("127.0.0.1:0"), "/").await;
    proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    proxied(sidecar.proxy(), "http://denied.example.com/", &[]).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let wanted = [
        "sidentity_requests_total{code=\"200\",credential=\"id\",listener=\"127.0.0.1:0\"} 1",
        "sidentity_requests_total{code=\"200\",credential=\"access\",listener=\"proxy\"} 1",
        "sidentity_requests_total{code=\"403\",credential=\"none\",listener=\"proxy\"} 1",
        "sidentity_request_duration_seconds_count{credential=\"access\",listener=\"proxy\"} 1",
        "sidentity_requests_in_flight{listener=\"proxy\"} 0",
        "sidentity_proxy_errors_total{error=\"http_request_denied\"} 1",
        "sidentity_token_fetches_total{credential=\"access\",outcome=\"ok\",source=\"metadata\"} 1",
        "sidentity_token_fetch_duration_seconds_count{credential=\"access\"} 1",
        "sidentity_token_lookups_total{credential=\"access\",outcome=\"wait\"} 1",
        "sidentity_upstream_connects_total{outcome=\"ok\"} 2",
        "sidentity_upstream_auth_rejected_total{code=\"401\"} 0",
        "sidentity_token_expiry_timestamp_seconds{credential=\"access\"} ",
        "sidentity_build_info{",
        "sidentity_upstream_connections ",
        "sidentity_connections{listener=\"proxy\"} ",
        "process_start_time_seconds ",
    ];
    loop {
        let metrics = get(sidecar.admin(), "/metrics").await;
        let metrics = text(&metrics);
        let missing: Vec<_> = wanted
            .iter()
            .filter(|line| !metrics.contains(**line))
            .collect();
        if missing.is_empty() {
            break;
        }
        // The record is written when its connection is dropped, shortly after the caller has the response.
        assert!(
            std::time::Instant::now() < deadline,
            "{missing:#?} not in {metrics}"
        );
    }
}

#[tokio::test]
async fn a_complete_http2_response_is_not_counted_as_cancelled() {
    let upstream = Streams::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let flags = upstream.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&metadata, &flags).await;
    let proxy = sidecar.proxy();
    let app = tokio::spawn(async move {
        proxied(proxy, "http://storage.googleapis.com/", &[]).await;
    });
    let mut stream = upstream.next().await;
    let response = http::Response::builder().header("content-length", "5");
    let mut body = stream.begin(response.body(()).unwrap());
    body.send_data("hello".into(), false).unwrap();
    app.await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let code = loop {
        let metrics = get(sidecar.admin(), "/metrics").await;
        let counted = "sidentity_requests_total{code=\"";
        if let Some((_, rest)) = text(&metrics).split_once(counted) {
            break rest.split('"').next().unwrap().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "nothing was counted");
    };
    assert_eq!(code, "200");
    let _ = body.send_data(Bytes::new(), true);
}

#[tokio::test]
async fn no_token_is_in_any_metric_page_or_log() {
    let secret = "ya29.very-secret-token-value";
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access(secret, 100)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let service = Service::answering(|_| super::support::service::reply(401, "no")).await;
    let mut args: Vec<&str> = ROUTE.to_vec();
    args.extend(["--access-log", "all", "--log-level", "trace"]);
    let mut sidecar = beside(&metadata, &service, &args).await;
    proxied(
        sidecar.proxy(),
        "http://storage.googleapis.com/?secret-query",
        &[],
    )
    .await;
    get(sidecar.address("127.0.0.1:0"), "/").await;
    let mut said = String::new();
    for path in [
        "/metrics",
        "/",
        "/readiness",
        "/explain?url=https://storage.googleapis.com",
    ] {
        said.push_str(text(&get(sidecar.admin(), path).await));
    }
    sidecar.signal("TERM");
    assert!(sidecar.ended().await.success());
    said.push_str(&format!("{:?}", sidecar.log()));
    assert!(!said.contains("very-secret"), "{said}");
    assert!(!said.contains("eyJ"), "{said}");
    assert!(!said.contains("secret-query"), "{said}");
}

/// RFC 9110, 9.1: a server must support GET and HEAD.
#[tokio::test]
async fn head_is_answered_like_get_and_named_as_allowed() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let ask = |method: &'static str, path: &str| {
        let request = Request::builder().method(method).uri(path);
        send(
            sidecar.admin(),
            request
                .header("host", "localhost")
                .body(Bytes::new())
                .unwrap(),
        )
    };
    for path in ["/", "/metrics", "/status", "/explain?url=https://a.run.app"] {
        let [get, head] = [ask("GET", path).await, ask("HEAD", path).await];
        assert_eq!(head.status(), get.status(), "{path}");
        assert_eq!(
            head.headers()["content-type"],
            get.headers()["content-type"]
        );
        let refused = ask("DELETE", path).await;
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.headers()["allow"], "GET, HEAD", "{path}");
    }
}

#[tokio::test]
async fn a_job_can_ask_the_sidecar_to_end() {
    let (_metadata, _service, mut sidecar) = started(&["--quitquitquit"]).await;
    let ask = |method: &'static str| {
        Request::builder()
            .method(method)
            .uri("/quitquitquit")
            .header("host", "localhost")
            .body(Bytes::new())
            .unwrap()
    };
    assert_eq!(send(sidecar.admin(), ask("GET")).await.status(), 405);
    assert_eq!(send(sidecar.admin(), ask("POST")).await.status(), 200);
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_metadata_server_all_ports_listen_but_none_is_ready() {
    let mut metadata = Metadata::start().await;
    metadata.stop().await;
    let sidecar = Sidecar::start(&metadata, &ROUTE).await;
    assert_eq!(get(sidecar.admin(), "/startup").await.status(), 200);
    assert_eq!(get(sidecar.admin(), "/liveness").await.status(), 200);
    assert_eq!(get(sidecar.admin(), "/readiness").await.status(), 503);
}
