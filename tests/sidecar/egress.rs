//! `--upstream-proxy`, from the app's request to the proxy and back.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::connect;
use super::exec::{exec, output, text as lossy, world};
use super::intercept::tls;
use super::is_for;
use super::support::app::{get, json, proxied, send, text};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::proxy::Proxy;
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::upstream::{Honest, Manner};
use super::support::wire::{Port, Wire, field};

mod check;
mod reload;
mod under_exec;

const SECRETS: [&str; 3] = ["s3cret", "s3%63ret", "dXNlcjpzM2NyZXQ="];

/// A proxy that connects every host to the service, and a sidecar that can use only this proxy.
struct Stage {
    metadata: Metadata,
    service: Service,
    proxy: Proxy,
    sidecar: Sidecar,
}

impl Stage {
    async fn start(args: &[&str]) -> Self {
        let service = Service::start().await;
        let proxy = Proxy::asking(service.address(), "Basic dXNlcjpzM2NyZXQ=").await;
        let metadata = metadata().await;
        let url = format!("http://user:s3%63ret@{}", proxy.address);
        let ca = service.ca().to_str().unwrap().to_owned();
        let own = ["--upstream-proxy", &url, "--upstream-ca", &ca];
        let sidecar = Sidecar::start(&metadata, &[&own[..], args].concat()).await;
        Self {
            metadata,
            service,
            proxy,
            sidecar,
        }
    }

    fn assert_no_secret(&self, what: &str) {
        let log = format!("{:?}", self.sidecar.log());
        for secret in SECRETS {
            assert!(!what.contains(secret), "{secret} in {what}");
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}

async fn metadata() -> Metadata {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    metadata
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()
}

#[track_caller]
fn refused(response: &Response<Bytes>, words: &[&str]) {
    assert_eq!(response.status(), 502, "{}", text(response));
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(status.contains("error=proxy_internal_response"), "{status}");
    for word in words {
        assert!(status.contains(word), "{word} is not in {status}");
        assert!(
            text(response).contains(word),
            "{word} is not in {}",
            text(response)
        );
    }
}

#[tokio::test]
async fn every_ingress_leaves_through_the_proxy_with_its_token() {
    let ca_dir = tempfile::tempdir().unwrap();
    let stage = Stage::start(&[
        "--route",
        "127.0.0.1:0=https://billing-424242.us-central1.run.app",
        "--intercept",
        "--ca-dir",
        ca_dir.path().to_str().unwrap(),
    ])
    .await;
    let route = stage.sidecar.address("127.0.0.1:0");
    assert_eq!(get(route, "/a").await.status(), 200);
    let proxy_summary = proxied(
        stage.sidecar.proxy(),
        "http://storage.googleapis.com/b",
        &[],
    )
    .await;
    assert_eq!(proxy_summary.status(), 200);
    let host = "pubsub.googleapis.com";
    let roots = ca_dir.path().join("ca.pem");
    let target = format!("{host}:443");
    let stream = tls(stage.sidecar.proxy(), &target, &roots, &[b"http/1.1"]);
    let mut app = Wire::over(stream.await.unwrap());
    app.send(format!("GET /c HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    assert!(app.head().await.starts_with("HTTP/1.1 200 "));
    let seen = stage.service.seen();
    let audience = "https://billing-424242.us-central1.run.app";
    assert!(is_for(authorization(&seen[0].headers), audience));
    assert_eq!(authorization(&seen[1].headers), Some("Bearer T1"));
    assert_eq!(authorization(&seen[2].headers), Some("Bearer T1"));
    assert_eq!(
        stage.proxy.lines(),
        [
            "CONNECT billing-424242.us-central1.run.app:443",
            "CONNECT storage.googleapis.com:443",
            "CONNECT pubsub.googleapis.com:443",
        ],
        "and the metadata server was asked directly"
    );
    for asked in stage.proxy.asked() {
        assert!(!asked.headers.contains_key("authorization"), "{asked:?}");
    }
    for seen in seen {
        assert!(
            !seen.headers.contains_key("proxy-authorization"),
            "{seen:?}"
        );
    }
    stage.assert_no_secret("");
}

/// Starts a service that also issues impersonated tokens.
async fn issuer() -> Service {
    Service::answering(|seen| {
        if seen.host != "iamcredentials.googleapis.com" {
            return Response::new("hello".into());
        }
        let expires = SystemTime::now() + Duration::from_secs(3600);
        let expires = humantime::format_rfc3339_seconds(expires);
        let answer = format!("{{\"accessToken\":\"T2\",\"expireTime\":\"{expires}\"}}");
        Response::builder()
            .header("content-type", "application/json")
            .body(answer.into())
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn token_endpoints_are_called_through_the_proxy() {
    let service = issuer().await;
    let proxy = Proxy::to(service.address()).await;
    let metadata = metadata().await;
    let ca = service.ca().to_str().unwrap().to_owned();
    let target = "runner@example-project.iam.gserviceaccount.com";
    let args = [
        "--upstream-proxy",
        &proxy.url(),
        "--upstream-ca",
        &ca,
        "--impersonate-service-account",
        target,
    ];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let url = "http://storage.googleapis.com/";
    let response = proxied(sidecar.proxy(), url, &[]).await;
    assert_eq!(response.status(), 200, "{}", text(&response));
    let seen = service.seen();
    assert_eq!(authorization(&seen[0].headers), Some("Bearer T1"));
    assert_eq!(authorization(&seen[1].headers), Some("Bearer T2"));
    let asked = [
        "CONNECT iamcredentials.googleapis.com:443",
        "CONNECT storage.googleapis.com:443",
    ];
    assert_eq!(proxy.lines(), asked);
    // A new token is needed, but the proxy refuses the endpoint.
    proxy.refuse(StatusCode::FORBIDDEN);
    let sidecar = Sidecar::start(&metadata, &args).await;
    let response = proxied(sidecar.proxy(), url, &[]).await;
    assert_eq!(response.status(), 502, "{}", text(&response));
    for words in [
        "token:",
        "iamcredentials.googleapis.com",
        "403 Forbidden",
        &proxy.url(),
    ] {
        assert!(
            text(&response).contains(words),
            "{words}: {}",
            text(&response)
        );
    }
}

#[tokio::test]
async fn a_blind_tunnel_uses_the_proxy_whichever_side_speaks_first() {
    let port = Port::open().await;
    let proxy = Proxy::to(port.address()).await;
    let metadata = metadata().await;
    let sidecar = Sidecar::start(&metadata, &["--upstream-proxy", &proxy.url()]).await;
    let (answer, mut app) = connect(sidecar.proxy(), "mail.example.com:25").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut far = port.accept().await;
    far.send("220 ready").await;
    let mut greeting = [0; 9];
    app.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
    app.write_all(b"HELO").await.unwrap();
    assert_eq!(far.exactly(4).await, "HELO");
    assert_eq!(proxy.lines(), ["CONNECT mail.example.com:25"]);
    proxy.refuse(StatusCode::FORBIDDEN);
    let (answer, _) = connect(sidecar.proxy(), "mail.example.com:25").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let status = field(&answer, "proxy-status").unwrap();
    assert!(status.contains("error=proxy_internal_response"), "{status}");
    assert!(
        status.contains("403 Forbidden the proxy's own words"),
        "{status}"
    );
}

#[tokio::test]
async fn a_call_in_cleartext_without_a_token_is_forwarded_in_absolute_form() {
    let plain = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(plain.address).await;
    let metadata = metadata().await;
    let sidecar = Sidecar::start(&metadata, &["--upstream-proxy", &proxy.url()]).await;
    let headers = [
        ("authorization", "Bearer app's own"),
        ("proxy-authorization", "Basic Zm9yOnVz"),
        ("cookie", "a=b"),
    ];
    let response = proxied(sidecar.proxy(), "http://plain.example:8080/a?b", &headers).await;
    assert_eq!(response.status(), 200);
    assert_eq!(proxy.lines(), ["GET http://plain.example:8080/a?b"]);
    let asked = &proxy.asked()[0];
    assert_eq!(asked.headers["host"], "plain.example:8080");
    assert_eq!(authorization(&asked.headers), Some("Bearer app's own"));
    assert!(!asked.headers.contains_key("proxy-authorization"));
    // The handshake of a WebSocket uses CONNECT.
    let mut app = Wire::open(sidecar.proxy()).await;
    app.send(
        "GET http://plain.example/upgrade HTTP/1.1\r\nHost: plain.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    )
    .await;
    assert!(app.head().await.starts_with("HTTP/1.1 101 "));
    app.send("frames").await;
    assert_eq!(app.exactly(6).await, "frames");
    assert_eq!(proxy.lines()[1], "CONNECT plain.example:80");
}

#[tokio::test]
async fn a_token_in_cleartext_is_never_forwarded() {
    let plain = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(plain.address).await;
    let metadata = metadata().await;
    let rule = "legacy.example=id,plaintext=allow";
    let args = ["--upstream-proxy", &proxy.url(), "--rule", rule];
    let sidecar = Sidecar::start(&metadata, &args).await;
    let response = proxied(sidecar.proxy(), "http://legacy.example/", &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(proxy.lines(), ["CONNECT legacy.example:80"]);
    assert!(!proxy.asked()[0].headers.contains_key("authorization"));
    assert!(authorization(&plain.only().headers).is_some());
    let warned = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("plaintext=allow") && message.contains(&proxy.url())
    };
    sidecar.logged(warned).await;
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_a_502_without_its_password() {
    let stage = Stage::start(&["--access-log", "all"]).await;
    stage.proxy.refuse(StatusCode::FORBIDDEN);
    let url = "http://storage.googleapis.com/";
    let response = proxied(stage.sidecar.proxy(), url, &[]).await;
    let proxy = format!("http://{}", stage.proxy.address);
    let words = [
        "403 Forbidden the proxy's own words",
        "storage.googleapis.com",
        &proxy,
    ];
    refused(&response, &words);
    stage.assert_no_secret(text(&response));
    let request = Request::post(url)
        .header("host", "storage.googleapis.com")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Bytes::new());
    let response = send(stage.sidecar.proxy(), request.unwrap()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert!(message.contains("403"), "{message}");
    let errors = "sidentity_proxy_errors_total{error=\"proxy_internal_response\"} 2";
    stage.sidecar.counted(errors).await;
    assert!(stage.service.seen().is_empty());
}

#[tokio::test]
async fn a_407_of_the_upstream_proxy_is_a_502_for_the_app() {
    let plain = Honest::start(Manner::default()).await;
    let proxy = Proxy::asking(plain.address, "Basic dXNlcjpzM2NyZXQ=").await;
    let metadata = metadata().await;
    let url = format!("http://user:wr0ng@{}", proxy.address);
    let sidecar = Sidecar::start(&metadata, &["--upstream-proxy", &url]).await;
    for url in ["http://plain.example/", "http://storage.googleapis.com/"] {
        let response = proxied(sidecar.proxy(), url, &[]).await;
        refused(
            &response,
            &["407", "does not accept the credentials of --upstream-proxy"],
        );
        assert!(!response.headers().contains_key("proxy-authenticate"));
        assert!(!text(&response).contains("wr0ng"), "{}", text(&response));
    }
}

#[tokio::test]
async fn hosts_on_the_list_are_called_directly() {
    let plain = Honest::start(Manner::default()).await;
    let proxy = Proxy::to(plain.address).await;
    let metadata = metadata().await;
    let args = [
        "--upstream-proxy",
        &proxy.url(),
        "--no-upstream-proxy",
        "127.0.0.0/8",
    ];
    let env = [("SIDENTITY_NO_UPSTREAM_PROXY", "b.example, .c.example")];
    let sidecar = Sidecar::start_with(&metadata, &args, &env).await;
    let url = format!("http://{}/direct", plain.address);
    assert_eq!(proxied(sidecar.proxy(), &url, &[]).await.status(), 200);
    assert!(proxy.lines().is_empty());
    // The host is on the list, so only the system's resolver is asked, and does not know it.
    let response = proxied(sidecar.proxy(), "http://x.c.example.invalid./", &[]).await;
    assert_eq!(response.status(), 200, "that is another name");
    let status = json(&get(sidecar.admin(), "/status").await);
    let shown = format!("{}, but not 127.0.0.0/8,b.example,.c.example", proxy.url());
    assert_eq!(status["upstream_proxy"], shown);
}

#[tokio::test]
async fn the_metadata_server_and_own_listeners_are_refused_without_the_proxy() {
    let stage = Stage::start(&["--metadata-access", "deny"]).await;
    let own = stage.sidecar.admin();
    let (answer, _) = connect(stage.sidecar.proxy(), &own.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    let own = format!("http://localhost:{}/", own.port());
    assert_eq!(
        proxied(stage.sidecar.proxy(), &own, &[]).await.status(),
        508
    );
    for host in ["metadata.google.internal", "169.254.169.254"] {
        let response = proxied(stage.sidecar.proxy(), &format!("http://{host}/"), &[]).await;
        assert_eq!(response.status(), 403, "{host}");
    }
    assert!(stage.proxy.asked().is_empty());
}

#[tokio::test]
async fn the_environments_proxies_are_not_used_by_run() {
    let plain = Honest::start(Manner::default()).await;
    let trap = Port::open().await;
    let url = format!("http://{}", trap.address());
    let env = [
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "http_proxy",
    ];
    let env = env.map(|name| (name, url.as_str()));
    let metadata = metadata().await;
    let sidecar = Sidecar::start_with(&metadata, &[], &env).await;
    let url = format!("http://{}/", plain.address);
    assert_eq!(proxied(sidecar.proxy(), &url, &[]).await.status(), 200);
    trap.untouched().await;
}

#[tokio::test]
async fn start_explain_and_status_name_the_upstream_proxy() {
    let stage = Stage::start(&["--no-upstream-proxy", "intern.example"]).await;
    let proxy = format!("http://{}", stage.proxy.address);
    let said = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message
            == format!("upstreams are reached through the proxy {proxy}, but not intern.example")
    };
    stage.sidecar.logged(said).await;
    let status = get(stage.sidecar.admin(), "/status").await;
    let shown = format!("{proxy}, but not intern.example");
    assert_eq!(json(&status)["upstream_proxy"], shown);
    stage.assert_no_secret(text(&status));
    for (url, note) in [
        (
            "https://storage.googleapis.com/",
            format!("the call uses the upstream proxy {proxy}"),
        ),
        (
            "https://a.intern.example/",
            format!(
                "the call does not use the upstream proxy {proxy}: --no-upstream-proxy names it"
            ),
        ),
    ] {
        let explained = get(stage.sidecar.admin(), &format!("/explain?url={url}")).await;
        let explained = json(&explained);
        let notes = explained["notes"].as_array().unwrap();
        assert!(
            notes.iter().any(|line| *line == note),
            "{note} in {notes:?}"
        );
    }
    drop(stage.metadata);
}
