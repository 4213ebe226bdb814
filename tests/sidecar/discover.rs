//! Cloud Run services by their names.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use super::connect::connect;
use super::support::app::{get, json, proxied, raw, send, text};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::wire::Wire;
use super::{beside, is_for};

const NUMBER: &str = "/computeMetadata/v1/project/numeric-project-id";
const REGION: &str = "/computeMetadata/v1/instance/region";
const ZONE: &str = "/computeMetadata/v1/instance/zone";

const BILLING: &str = "https://billing-424242.us-central1.run.app";

/// Starts a metadata server with a region and a project number.
async fn metadata() -> Metadata {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    metadata.script_path(NUMBER, [Answer::ok("424242")]);
    metadata.script_path(REGION, [Answer::ok("projects/424242/regions/us-central1")]);
    metadata
}

async fn discovering(args: &[&str]) -> (Metadata, Service, Sidecar) {
    let (metadata, service) = (metadata().await, Service::start().await);
    let args = [&["--discover", "on"], args].concat();
    let sidecar = beside(&metadata, &service, &args).await;
    (metadata, service, sidecar)
}

fn asked(metadata: &Metadata, path: &str) -> usize {
    let all = metadata.all_requests();
    all.iter().filter(|request| request.path == path).count()
}

fn problem(response: &Response<Bytes>) -> (u16, String) {
    let detail = json(response)["detail"].as_str().unwrap().to_owned();
    (response.status().as_u16(), detail)
}

#[tokio::test]
async fn a_service_is_called_by_its_name() {
    let (metadata, service, sidecar) = discovering(&[]).await;
    assert_eq!(asked(&metadata, NUMBER) + asked(&metadata, REGION), 0);
    for (url, host) in [
        (
            "http://billing/v1?a=b",
            "billing-424242.us-central1.run.app",
        ),
        (
            "http://Billing./v1?a=b",
            "billing-424242.us-central1.run.app",
        ),
        (
            "http://billing.us-central1/v1?a=b",
            "billing-424242.us-central1.run.app",
        ),
        (
            "http://mail.us-central1.run.internal/v1?a=b",
            "mail-424242.us-central1.run.app",
        ),
    ] {
        let before = service.seen().len();
        let response = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(
            (response.status().as_u16(), text(&response)),
            (200, "hello"),
            "{url}"
        );
        let seen = service.seen()[before..].to_vec();
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (&*seen[0].host, &*seen[0].target),
            (host, "/v1?a=b"),
            "{url}"
        );
        assert!(
            is_for(seen[0].header("authorization"), &format!("https://{host}")),
            "{url}"
        );
    }
    // Once known, they are not requested again.
    assert_eq!((asked(&metadata, NUMBER), asked(&metadata, REGION)), (1, 1));
}

#[tokio::test]
async fn a_name_with_a_region_does_not_need_the_sidecars_region() {
    let (metadata, service, sidecar) = discovering(&[]).await;
    metadata.script_path(REGION, [Answer::status(404, "none")]);
    metadata.script_path(ZONE, [Answer::status(404, "none")]);
    let url = "http://billing.us-central1/";
    assert_eq!(proxied(sidecar.proxy(), url, &[]).await.status(), 200);
    assert_eq!(service.only().host, "billing-424242.us-central1.run.app");
    assert_eq!(asked(&metadata, REGION), 0);
    let (status, detail) = problem(&proxied(sidecar.proxy(), "http://billing/", &[]).await);
    assert_eq!(status, 502, "{detail}");
}

#[tokio::test]
async fn a_machine_without_a_region_uses_that_of_its_zone() {
    let (metadata, service, sidecar) = discovering(&[]).await;
    metadata.script_path(REGION, [Answer::status(404, "none")]);
    metadata.script_path(ZONE, [Answer::ok("projects/424242/zones/us-central1-f")]);
    assert_eq!(
        proxied(sidecar.proxy(), "http://billing/", &[])
            .await
            .status(),
        200
    );
    assert_eq!(service.only().host, "billing-424242.us-central1.run.app");
}

#[tokio::test]
async fn a_silent_metadata_server_is_reported_and_retried() {
    let (metadata, service, sidecar) = discovering(&["--token-timeout", "500ms"]).await;
    metadata.script_path(NUMBER, [Answer::status(503, "warming up")]);
    let response = proxied(sidecar.proxy(), "http://billing/", &[]).await;
    assert!(response.headers().contains_key("retry-after"));
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(
        status.starts_with("sidentity; error=proxy_internal_error; details=\"token: "),
        "{status}"
    );
    let (status, detail) = problem(&response);
    assert_eq!(status, 503);
    assert!(
        detail.contains("the project's number") && detail.contains("warming up"),
        "{detail}"
    );
    assert!(service.seen().is_empty());

    metadata.script_path(NUMBER, [Answer::ok("424242")]);
    let answered = async {
        while proxied(sidecar.proxy(), "http://billing/", &[])
            .await
            .status()
            != 200
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered)
        .await
        .unwrap();

    let (metadata, service, sidecar) = discovering(&[]).await;
    metadata.script_path(NUMBER, [Answer::ok("<html>")]);
    let (status, detail) = problem(&proxied(sidecar.proxy(), "http://billing/", &[]).await);
    assert_eq!(status, 502, "{detail}");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn many_first_calls_share_one_lookup() {
    let (metadata, service, sidecar) = discovering(&[]).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let proxy = sidecar.proxy();
        calls.spawn(async move { proxied(proxy, "http://billing/", &[]).await.status() });
    }
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(service.seen().len(), 50);
    assert_eq!((asked(&metadata, NUMBER), asked(&metadata, REGION)), (1, 1));
}

#[tokio::test]
async fn an_impossible_service_name_is_reported() {
    let (_metadata, service, sidecar) = discovering(&[]).await;
    let long = format!("http://{}/", "a".repeat(57));
    for (url, why) in [
        ("http://my_service/", "lower-case letters"),
        (
            "http://metadata.us-central1/",
            "that is the metadata server",
        ),
        (
            "http://billing.run.internal/",
            "write SERVICE.REGION.run.internal",
        ),
        (&long, "has 64 characters, and a label of DNS at most 63"),
    ] {
        let (status, detail) = problem(&proxied(sidecar.proxy(), url, &[]).await);
        assert_eq!(status, 400, "{url}: {detail}");
        assert!(detail.contains(why), "{url}: {detail}");
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_to_a_service_name_is_refused_with_advice() {
    let (_metadata, service, sidecar) = discovering(&["--intercept"]).await;
    let request = "CONNECT billing:443 HTTP/1.1\r\nHost: billing:443\r\nConnection: close\r\n\r\n";
    let answer = raw(sidecar.proxy(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("write http://billing/"), "{answer}");
    assert!(service.seen().is_empty());
}

/// Node's `fetch("http://billing/x")` sends this to a proxy.
#[tokio::test]
async fn http_in_a_tunnel_to_a_service_name_reaches_the_service() {
    let (_metadata, service, sidecar) = discovering(&["--unmatched", "deny"]).await;
    for (target, host) in [
        ("billing:80", "billing-424242.us-central1.run.app"),
        ("mail.us-central1:80", "mail-424242.us-central1.run.app"),
    ] {
        let (answer, app) = connect(sidecar.proxy(), target).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut app = Wire::over(app);
        let name = target.split(':').next().unwrap();
        app.send(format!("GET /x HTTP/1.1\r\nHost: {name}\r\n\r\n"))
            .await;
        let (head, body) = app.message().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, "hello");
        let seen = service.seen().pop().unwrap();
        assert_eq!((&*seen.host, &*seen.target), (host, "/x"));
        assert!(is_for(
            seen.header("authorization"),
            &format!("https://{host}")
        ));
    }
}

#[tokio::test]
async fn rules_apply_to_the_resolved_host_of_a_service_name() {
    let args = ["--rule", "billing-424242.us-central1.run.app/admin=deny"];
    let (_metadata, service, sidecar) = discovering(&args).await;
    let denied = proxied(sidecar.proxy(), "http://billing/admin/x", &[]).await;
    assert_eq!(denied.status(), 403);
    assert_eq!(
        proxied(sidecar.proxy(), "http://billing/x", &[])
            .await
            .status(),
        200
    );
    assert_eq!(service.only().target, "/x");
}

#[tokio::test]
async fn a_rule_for_the_service_name_takes_precedence() {
    let (metadata, service, sidecar) = discovering(&["--rule", "billing=deny"]).await;
    let (status, detail) = problem(&proxied(sidecar.proxy(), "http://billing/", &[]).await);
    assert_eq!(status, 403);
    assert!(detail.contains("--rule billing=deny"), "{detail}");
    assert_eq!(asked(&metadata, NUMBER), 0);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn service_names_are_resolved_only_with_discover() {
    let (metadata, service) = (metadata().await, Service::start().await);
    let sidecar = beside(&metadata, &service, &[]).await;
    let response = proxied(sidecar.proxy(), "http://billing.invalid/", &[]).await;
    assert_eq!(response.status(), 502);
    // `auto` means on if Cloud Run's variable is set.
    let flags = service.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let cloud_run = Sidecar::start_with(&metadata, &flags, &[("K_SERVICE", "shop")]).await;
    assert_eq!(
        proxied(cloud_run.proxy(), "http://billing/", &[])
            .await
            .status(),
        200
    );
    let flags = [&flags[..], &["--discover", "off"]].concat();
    let off = Sidecar::start_with(&metadata, &flags, &[("K_SERVICE", "shop")]).await;
    assert_eq!(asked(&metadata, NUMBER), 1);
    assert_ne!(
        proxied(off.proxy(), "http://billing/", &[]).await.status(),
        200
    );
    assert_eq!(asked(&metadata, NUMBER), 1);
}

#[tokio::test]
async fn a_route_leads_to_a_service_by_its_name() {
    let args = ["--route", "127.0.0.1:0/b=run://billing/v1"];
    let (metadata, service) = (metadata().await, Service::start().await);
    let sidecar = beside(&metadata, &service, &args).await;
    let route = sidecar.address(args[1].split('=').next().unwrap());
    let ready = async {
        while get(sidecar.admin(), "/readiness").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready)
        .await
        .unwrap();
    // Readiness means that the token is cached before the first call.
    assert_eq!(metadata.count(Kind::Identity), 1);
    assert_eq!(get(route, "/b/x").await.status(), 200);
    let seen = service.only();
    assert_eq!(
        (&*seen.host, &*seen.target),
        ("billing-424242.us-central1.run.app", "/v1/x")
    );
    assert!(is_for(seen.header("authorization"), BILLING));
    assert_eq!(metadata.count(Kind::Identity), 1);
}

#[tokio::test]
async fn a_route_is_not_ready_before_its_service_is_resolved() {
    let (metadata, service) = (metadata().await, Service::start().await);
    metadata.script_path(REGION, [Answer::status(503, "warming up")]);
    let args = [
        "--route",
        "127.0.0.1:0=run://billing",
        "--token-timeout",
        "200ms",
    ];
    let sidecar = beside(&metadata, &service, &args).await;
    let response = get(sidecar.admin(), "/readiness").await;
    assert_eq!(response.status(), 503);
    assert!(
        text(&response).contains("the project number and the region are not known yet"),
        "{}",
        text(&response)
    );
    metadata.script_path(REGION, [Answer::ok("projects/424242/regions/us-central1")]);
    let ready = async {
        while get(sidecar.admin(), "/readiness").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_redirect_of_the_service_to_itself_stays_under_its_name() {
    let service = Service::answering(|seen| {
        Response::builder()
            .status(302)
            .header("location", format!("https://{}/v1/", seen.host))
            .body(Bytes::new())
            .unwrap()
    })
    .await;
    let metadata = metadata().await;
    let args = ["--discover", "on", "--route", "127.0.0.1:0=run://billing"];
    let sidecar = beside(&metadata, &service, &args).await;
    let location =
        |response: Response<Bytes>| response.headers()["location"].to_str().unwrap().to_owned();
    let named = proxied(sidecar.proxy(), "http://billing/v1", &[]).await;
    assert_eq!(location(named), "http://billing/v1/");
    let route = sidecar.address("127.0.0.1:0");
    assert_eq!(
        location(get(route, "/v1").await),
        format!("http://{route}/v1/")
    );
    // A call by the service's own URL gets that URL.
    for url in [BILLING, &BILLING.replace("https", "http")] {
        let full = proxied(sidecar.proxy(), url, &[]).await;
        assert_eq!(location(full), format!("{url}/v1/"));
    }
}

/// The name has no certificate, and a tunnel to it is refused.
#[tokio::test]
async fn a_redirect_to_the_https_equivalent_of_a_services_name_stays_with_http() {
    let service = Service::answering(|seen| {
        Response::builder()
            .status(302)
            .header("location", seen.header("x-location").unwrap_or_default())
            .body(Bytes::new())
            .unwrap()
    })
    .await;
    let metadata = metadata().await;
    let sidecar = beside(&metadata, &service, &["--discover", "on"]).await;
    for (url, told, passed) in [
        (
            "http://billing/v1",
            "https://billing/n?a#b",
            "http://billing/n?a#b",
        ),
        (
            "http://billing/v1",
            "https://BILLING:443/n",
            "http://billing/n",
        ),
        ("http://billing/v1", "//billing/n", "http://billing/n"),
        ("http://billing/v1", "http://billing/n", "http://billing/n"),
        (
            "http://billing.us-central1/v1",
            "https://billing.us-central1/n",
            "http://billing.us-central1/n",
        ),
        ("http://billing/v1", "/n", "/n"),
        ("http://billing/v1", "https://other/n", "https://other/n"),
        (
            "http://billing/v1",
            "https://billing:8443/n",
            "https://billing:8443/n",
        ),
        (
            "http://billing/v1",
            "https://u@billing/n",
            "https://u@billing/n",
        ),
        // The call used the service's own URL.
        (BILLING, "https://billing/n", "https://billing/n"),
    ] {
        let response = proxied(sidecar.proxy(), url, &[("x-location", told)]).await;
        assert_eq!(response.headers()["location"], passed, "{url} {told}");
    }
}

#[tokio::test]
async fn explain_and_the_log_show_the_resolved_host() {
    let (_metadata, _service, sidecar) = discovering(&["--access-log", "all"]).await;
    let explain = |url: &str| {
        let request =
            Request::get(format!("/explain?url={url}")).header("host", sidecar.admin().to_string());
        send(sidecar.admin(), request.body(Bytes::new()).unwrap())
    };
    let before: Value = json(&explain("http://billing/").await);
    assert_eq!(
        before["destination"],
        "https://billing-PROJECTNUMBER.REGION.run.app"
    );
    assert_eq!(
        proxied(sidecar.proxy(), "http://billing/x", &[])
            .await
            .status(),
        200
    );
    let after: Value = json(&explain("http://billing/").await);
    assert_eq!(
        (&after["destination"], &after["audience"]),
        (&BILLING.into(), &BILLING.into())
    );
    let line = sidecar.logged(|line| line["httpRequest"].is_object()).await;
    assert!(
        line["httpRequest"]["requestUrl"]
            .as_str()
            .unwrap()
            .contains("billing-424242"),
        "{line}"
    );
    assert_eq!(explain("http://my_service/").await.status(), 400);
}

#[tokio::test]
async fn the_token_command_accepts_a_service_name() {
    let metadata = metadata().await;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["token", "--discover", "on", "http://billing.europe-west1/"])
        .env_clear()
        .env("GCE_METADATA_HOST", metadata.address().to_string())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    assert!(is_for(
        Some(&bearer),
        "https://billing-424242.europe-west1.run.app"
    ));
}
