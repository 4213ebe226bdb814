//! The errors that a caller gets if a call cannot be made. No request reaches the upstream without its token.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};

use super::started;
use super::support::app::{json, proxied, send};
use super::support::metadata::{Answer, Kind, in_seconds, jwt, jwt_of};

const API: &str = "http://storage.googleapis.com/";
const SERVICE: &str = "http://svc.a.run.app/";

/// Returns status, Proxy-Status error, and whether the details are about the token.
fn told(response: &Response<Bytes>) -> (u16, String, bool) {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem = json(response);
    assert_eq!(problem["status"], response.status().as_u16());
    assert!(problem["title"].is_string() && problem["type"].is_string());
    let status = response.headers()["proxy-status"].to_str().unwrap();
    let rest = status.strip_prefix("sidentity; error=").unwrap();
    let (error, details) = rest.split_once("; details=\"").unwrap();
    let about_token = details.starts_with("token:");
    assert_eq!(
        about_token,
        problem["detail"].as_str().unwrap().starts_with("token:")
    );
    (response.status().as_u16(), error.to_owned(), about_token)
}

#[tokio::test]
async fn without_a_token_no_call_is_made() {
    let nonsense: [(&str, Kind, Answer, u16); 17] = [
        ("404", Kind::Access, Answer::status(404, "not found"), 502),
        (
            "403",
            Kind::Access,
            Answer::status(403, "Unauthenticated\n"),
            502,
        ),
        (
            "a redirect",
            Kind::Access,
            Answer::status(302, "").header("location", "/x"),
            502,
        ),
        ("torn JSON", Kind::Access, Answer::ok("{bad"), 502),
        ("no token", Kind::Access, Answer::access("", 3600), 502),
        (
            "no lifetime",
            Kind::Access,
            Answer::ok(r#"{"access_token":"T1"}"#),
            502,
        ),
        ("no time left", Kind::Access, Answer::access("T1", 0), 502),
        (
            "line breaks",
            Kind::Access,
            Answer::access("T1\r\nX-Evil: 1", 3600),
            502,
        ),
        (
            "another server",
            Kind::Access,
            Answer::access("T1", 3600).without_flavor(),
            502,
        ),
        ("an empty token", Kind::Identity, Answer::ok(""), 502),
        ("white space", Kind::Identity, Answer::ok(" \n"), 502),
        (
            "two lines",
            Kind::Identity,
            Answer::ok("error\nnot-found"),
            502,
        ),
        (
            "a carriage return",
            Kind::Identity,
            Answer::ok("tok\rx"),
            502,
        ),
        ("no JWT", Kind::Identity, Answer::ok("not.a.jwt"), 502),
        ("two parts", Kind::Identity, Answer::ok("a.b"), 502),
        (
            "no expiry",
            Kind::Identity,
            Answer::ok(jwt_of(r#"{"aud":"x"}"#)),
            502,
        ),
        (
            "another audience",
            Kind::Identity,
            Answer::ok(jwt("https://other-abc-uc.a.run.app", in_seconds(3600))),
            502,
        ),
    ];
    for (what, kind, answer, status) in nonsense {
        let (metadata, service, sidecar) = started(&[]).await;
        metadata.script(kind, [answer]);
        let url = if kind == Kind::Access { API } else { SERVICE };
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(
            told(&response),
            (status, "proxy_internal_error".into(), true),
            "{what}"
        );
        assert!(service.seen().is_empty(), "{what}: the upstream was called");
        // A failure is not permanent, but during the backoff a request fails at once.
        let again = Instant::now();
        assert_eq!(
            proxied(sidecar.proxy(), url, &[]).await.status(),
            status,
            "{what}"
        );
        assert!(again.elapsed() < Duration::from_millis(700), "{what}");
        assert_eq!(
            metadata.count(kind),
            1,
            "{what}: asked again within the pause"
        );
    }
}

#[tokio::test]
async fn a_stopped_metadata_server_is_503_with_retry_after() {
    let (mut metadata, service, sidecar) = started(&["--token-timeout", "1s"]).await;
    metadata.stop().await;
    let response = proxied(sidecar.proxy(), API, &[]).await;
    assert_eq!(told(&response), (503, "proxy_internal_error".into(), true));
    assert!(response.headers().contains_key("retry-after"));
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_restarted_metadata_server_is_used_without_a_restart_of_the_sidecar() {
    let (metadata, service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Access,
        [
            Answer::status(404, "no account"),
            Answer::access("T1", 3600),
        ],
    );
    assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 502);
    let deadline = Instant::now() + Duration::from_secs(10);
    while proxied(sidecar.proxy(), API, &[]).await.status() != 200 {
        assert!(Instant::now() < deadline, "it did not recover");
        tokio::task::yield_now().await;
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn grpc_callers_get_a_grpc_status() {
    let (metadata, service, sidecar) = started(&[]).await;
    metadata.script(Kind::Identity, [Answer::status(403, "no")]);
    let request = Request::post(SERVICE)
        .header("host", "svc.a.run.app")
        .header("content-type", "application/grpc+proto")
        .body(Bytes::from_static(b"\0\0\0\0\0"));
    let response = send(sidecar.proxy(), request.unwrap()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(
        response.headers()["grpc-message"]
            .to_str()
            .unwrap()
            .starts_with("token:")
    );
    assert!(response.body().is_empty());
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_an_error_with_the_reason() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = format!("refused.example.com:443:127.0.0.1:{port}");
    let unresolvable = "dns.example.com:443:nowhere.invalid:443";
    let args = [
        "--rule",
        "*.example.com=access",
        "--connect-to",
        &refused,
        "--connect-to",
        unresolvable,
    ];
    let service = super::Service::start().await;
    let metadata = super::Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let sidecar = super::support::sidecar::Sidecar::start(&metadata, &args).await;
    drop(service);
    let response = proxied(sidecar.proxy(), "http://refused.example.com/", &[]).await;
    assert_eq!(told(&response), (502, "connection_refused".into(), false));
    let response = proxied(sidecar.proxy(), "http://dns.example.com/", &[]).await;
    assert_eq!(told(&response), (502, "dns_error".into(), false));
}

#[tokio::test]
async fn denied_destinations_are_403() {
    let (metadata, service, sidecar) = started(&[
        "--unmatched",
        "deny",
        "--rule",
        "storage.googleapis.com/private=deny",
    ])
    .await;
    for url in [
        "http://example.com/",
        "http://storage.googleapis.com/private/x",
        "http://storage.googleapis.com/public/../private/x",
        "http://storage.googleapis.com/%70rivate",
    ] {
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(
            told(&response),
            (403, "http_request_denied".into(), false),
            "{url}"
        );
    }
    assert_eq!(proxied(sidecar.proxy(), API, &[]).await.status(), 200);
    assert_eq!((service.seen().len(), metadata.count(Kind::Access)), (1, 1));
}

#[tokio::test]
async fn a_request_over_the_limit_is_503_at_once() {
    let (_metadata, _service, sidecar) = started(&["--max-connections", "2"]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(super::support::app::HeldConnection::open(sidecar.proxy(), API).await);
    }
    let response = proxied(sidecar.proxy(), API, &[]).await;
    assert_eq!(
        told(&response),
        (503, "connection_limit_reached".into(), false)
    );
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while proxied(sidecar.proxy(), API, &[]).await.status() != 200 {
        assert!(Instant::now() < deadline, "the places were not given back");
    }
}

#[tokio::test]
async fn grpc_web_callers_get_an_http_status() {
    let (metadata, _service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Identity,
        [Answer::status(404, ""), Answer::status(404, "")],
    );
    for (media_type, grpc) in [
        ("application/grpc-web+proto", false),
        ("Application/gRPC; charset=x", true),
    ] {
        let request = Request::post(SERVICE)
            .header("host", "svc.a.run.app")
            .header("content-type", media_type)
            .body(Bytes::new())
            .unwrap();
        let response = send(sidecar.proxy(), request).await;
        assert_eq!(response.headers().contains_key("grpc-status"), grpc);
        assert_eq!(response.status(), if grpc { 200 } else { 502 });
    }
}
