//! The data of the status page. It must show what is wrong and what to do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use super::support::app::{get, json, proxied, send, text};
use super::support::metadata::{Answer, Kind, Metadata};
use super::support::service::{Service, reply};
use super::support::sidecar::Sidecar;
use super::{beside, started, started_with};

const SERVICE: &str = "http://svc.a.run.app/";
const ROUTE: [&str; 2] = ["--route", "127.0.0.1:0/billing=https://svc.a.run.app/v1"];

/// Polls until the response is as wanted, because a record is written shortly after the caller has its response.
async fn status_when(sidecar: &Sidecar, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = json(&get(sidecar.admin(), "/status").await);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "it did not come: {status:#}");
    }
}

/// Returns the error of this title, once it is listed.
async fn error_titled(sidecar: &Sidecar, title: &str) -> Value {
    let find = |status: &Value| {
        let errors = status["errors"].as_array()?;
        errors.iter().find(|error| error["title"] == title).cloned()
    };
    let status = status_when(sidecar, |status| find(status).is_some()).await;
    find(&status).unwrap()
}

fn sum(values: &Value) -> u64 {
    let values = values.as_array().unwrap();
    values.iter().map(|value| value.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_status_page_of_a_new_sidecar_shows_its_configuration() {
    let rule =
        "iap.example.com=id,audience=1-x.apps.googleusercontent.com,header=proxy-authorization";
    let (_metadata, _service, sidecar) =
        started(&["--rule", rule, "--unmatched", "deny", ROUTE[0], ROUTE[1]]).await;
    let status = status_when(&sidecar, |status| {
        status["ready"] == true && !status["account"].is_null() && !status["project"].is_null()
    })
    .await;
    assert_eq!(status["state"], "serving");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        status["account"],
        "default@test-project.iam.gserviceaccount.com"
    );
    assert_eq!(status["project"], "test-project");
    for time in ["now", "since", "started"] {
        assert!(status[time].as_str().unwrap().ends_with('Z'), "{time}");
    }
    let rules = status["rules"].as_array().unwrap();
    assert_eq!(rules[0]["pattern"], "iap.example.com");
    assert_eq!(rules[0]["audience"], "1-x.apps.googleusercontent.com");
    assert_eq!(rules[0]["header"], "proxy-authorization");
    assert_eq!(rules.last().unwrap()["credential"], "deny");
    let route = &status["routes"][0];
    assert_eq!(route["upstream"], "https://svc.a.run.app/v1");
    assert_eq!(route["gets"]["credential"], "id");
    assert_eq!(route["gets"]["audience"], "https://svc.a.run.app");
    assert_eq!(route["token"], "fresh");
    let kinds: Vec<_> = status["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| listener["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["proxy", "route", "admin"]);
    assert_eq!(status["history"]["requests"].as_array().unwrap().len(), 90);
    assert_eq!(status["history"]["total"]["p50"], Value::Null);
    assert_eq!(status["errors"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn calls_are_counted_and_timed_by_listener() {
    let service = Service::answering(|seen| match &*seen.target {
        "/v1/down?key=hidden" => reply(500, "oh"),
        _ => reply(200, "hello"),
    })
    .await;
    let (_metadata, sidecar) = started_with(
        &service,
        &["--route", "127.0.0.1:0/billing=https://svc.a.run.app"],
    )
    .await;
    let route = sidecar.address("127.0.0.1:0/billing");
    for path in ["/billing/a", "/billing/v1/down?key=hidden", "/elsewhere"] {
        get(route, path).await;
    }
    proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    let status = status_when(&sidecar, |status| {
        status["history"]["total"]["requests"] == 4
    })
    .await;
    let history = &status["history"];
    assert_eq!(sum(&history["requests"]), 4);
    assert_eq!(sum(&history["upstream_errors"]), 1);
    assert_eq!(sum(&history["failed"]), 1);
    assert_eq!(history["total"]["errors"], 2);
    assert!(history["total"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(status["routes"][0]["requests"], 2);
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners[0]["requests"], 1, "{listeners:?}");
    assert_eq!(listeners[1]["requests"], 3, "{listeners:?}");
    let tokens = status["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    assert_eq!(status["tokens_total"], 2);
    for token in tokens {
        assert_eq!(token["state"], "fresh");
        assert!((3_500..=3_600).contains(&token["left_seconds"].as_u64().unwrap()));
        assert!(token["fetched"].is_string() && token["expires"].is_string());
    }
    let down = error_titled(&sidecar, "The upstream answered with an error").await;
    assert_eq!(
        (&down["status"], &down["about"]),
        (&500.into(), &"https://svc.a.run.app".into())
    );
    assert!(down["advice"].as_str().unwrap().contains("upstream's log"));
    let lost = error_titled(&sidecar, "No route has this path").await;
    assert_eq!(lost["status"], 404);
    assert!(lost["listener"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn a_missing_service_account_is_reported_with_advice() {
    let (metadata, _service, sidecar) = started(&[]).await;
    metadata.script(
        Kind::Identity,
        [Answer::status(404, "<script>alert(1)</script>\u{202e}")],
    );
    proxied(sidecar.proxy(), SERVICE, &[]).await;
    let error = error_titled(&sidecar, "No such service account here").await;
    assert!(
        error["advice"]
            .as_str()
            .unwrap()
            .starts_with("Attach a service account")
    );
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("<script>alert(1)</script>"), "{detail}");
    assert!(!detail.contains('\u{202e}'));
    let status = status_when(&sidecar, |status| status["tokens"][0]["failures"] == 1).await;
    let token = &status["tokens"][0];
    assert_eq!(token["state"], "empty");
    assert!(token["advice"].as_str().unwrap().starts_with("Attach"));
    assert!(token["last_error"].as_str().unwrap().starts_with("token:"));
}

#[tokio::test]
async fn a_stopped_metadata_server_is_one_error_with_a_count() {
    let (mut metadata, _service, sidecar) = started(&[
        "--token-timeout",
        "1s",
        "--rule",
        "other.example=id",
        "--route",
        "127.0.0.1:0=https://svc.b.run.app",
    ])
    .await;
    metadata.stop().await;
    for url in [
        SERVICE,
        SERVICE,
        "http://storage.googleapis.com/",
        "http://other.example/",
    ] {
        assert_eq!(proxied(sidecar.proxy(), url, &[]).await.status(), 503);
    }
    let title = "The metadata server cannot be reached";
    let error = error_titled(&sidecar, title).await;
    assert!(
        error["advice"]
            .as_str()
            .unwrap()
            .contains("169.254.169.254")
    );
    let status = status_when(&sidecar, |status| status["errors"][0]["calls"] == 4).await;
    let errors = status["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0]["about"], "metadata server");
    assert_eq!(errors[0]["recent_calls"], 4);
    assert_eq!(errors[0]["status"], 503);
    assert!(errors[0]["count"].as_u64().unwrap() >= 4, "{errors:#?}");
}

/// The headline of the page is the error with the highest count.
#[tokio::test]
async fn each_error_counts_the_failed_calls_of_15_minutes() {
    let service = Service::answering(|_| reply(500, "oh")).await;
    let (_metadata, sidecar) = started_with(&service, &["--proxy-auth", "jane:hunter2"]).await;
    let credentials = ("proxy-authorization", "Basic amFuZTpodW50ZXIy");
    for _ in 0..3 {
        proxied(sidecar.proxy(), SERVICE, &[credentials]).await;
    }
    proxied(sidecar.proxy(), "http://nowhere.invalid/", &[credentials]).await;
    // A challenge does not fail the call, because the client responds to it.
    proxied(sidecar.proxy(), SERVICE, &[]).await;
    let status = status_when(&sidecar, |status| {
        status["errors"].as_array().unwrap().len() == 3
    })
    .await;
    let calls = |title: &str| {
        let errors = status["errors"].as_array().unwrap();
        let found = errors.iter().find(|error| error["title"] == title);
        found.unwrap()["recent_calls"].as_u64().unwrap()
    };
    assert_eq!(calls("The upstream answered with an error"), 3);
    assert_eq!(calls("The upstream's name does not resolve"), 1);
    assert_eq!(calls("The proxy requires credentials"), 0);
    assert_eq!(status["history"]["total"]["errors"], 4);
}

#[tokio::test]
async fn each_route_and_listener_has_its_own_errors_and_latency() {
    let service = Service::answering(|seen| match &*seen.target {
        "/down" => reply(500, "oh"),
        "/role" => reply(403, "no"),
        _ => reply(200, "hello"),
    })
    .await;
    let (_metadata, sidecar) = started_with(
        &service,
        &[
            "--route",
            "127.0.0.1:0/good=https://svc.a.run.app",
            "--route",
            "127.0.0.1:0/bad=https://svc.a.run.app",
        ],
    )
    .await;
    let (good, bad) = (
        sidecar.address("127.0.0.1:0/good"),
        sidecar.address("127.0.0.1:0/bad"),
    );
    for path in ["/good/a", "/good/b"] {
        get(good, path).await;
    }
    for path in ["/bad/down", "/bad/role", "/bad/fine"] {
        get(bad, path).await;
    }
    let status = status_when(&sidecar, |status| {
        status["history"]["total"]["requests"] == 5
    })
    .await;
    let route = |name: &str| {
        let routes = status["routes"].as_array().unwrap();
        routes.iter().find(|route| route["name"] == name).unwrap()
    };
    let (good, bad) = (route("127.0.0.1:0/good"), route("127.0.0.1:0/bad"));
    assert_eq!((&good["errors"], &bad["errors"]), (&0.into(), &2.into()));
    for route in [good, bad] {
        let (p50, p99) = (
            route["p50"].as_f64().unwrap(),
            route["p99"].as_f64().unwrap(),
        );
        assert!(p50 > 0.0 && p50 <= p99, "{route}");
    }
    let listeners = status["listeners"].as_array().unwrap();
    let proxy = listeners.iter().find(|l| l["kind"] == "proxy").unwrap();
    assert_eq!((&proxy["errors"], &proxy["p50"]), (&0.into(), &Value::Null));
    let errors: u64 = listeners
        .iter()
        .filter(|l| l["kind"] == "route")
        .map(|l| l["errors"].as_u64().unwrap())
        .sum();
    assert_eq!(errors, 2, "{listeners:#?}");
}

#[tokio::test]
async fn a_wrong_audience_and_a_missing_role_are_distinguished() {
    let service = Service::answering(|seen| match &*seen.target {
        "/role" => reply(403, "no"),
        _ => reply(401, "who?"),
    })
    .await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    proxied(sidecar.proxy(), &format!("{SERVICE}role"), &[]).await;
    let error = error_titled(&sidecar, "The upstream forbids the call to this account").await;
    let advice = error["advice"].as_str().unwrap();
    assert!(advice.contains("roles/run.invoker"), "{advice}");
    assert!(
        advice.contains("default@test-project.iam.gserviceaccount.com"),
        "{advice}"
    );
    proxied(sidecar.proxy(), SERVICE, &[]).await;
    let error = error_titled(&sidecar, "The upstream rejects the token").await;
    let advice = error["advice"].as_str().unwrap();
    assert!(
        advice.contains("audience must be the service's own URL"),
        "{advice}"
    );
    let detail = error["detail"].as_str().unwrap();
    assert!(
        detail.contains("https://svc.a.run.app in authorization"),
        "{detail}"
    );
    status_when(&sidecar, |status| sum(&status["history"]["rejected"]) == 2).await;
}

#[tokio::test]
async fn rejected_credentials_of_the_app_are_not_errors_of_the_sidecar() {
    let service = Service::answering(|_| reply(401, "who?")).await;
    let (_metadata, sidecar) = started_with(&service, &[]).await;
    let own = ("authorization", "Bearer the-apps-own");
    let url = "http://storage.googleapis.com/";
    let answer = proxied(sidecar.proxy(), url, &[own]).await;
    assert_eq!(answer.status(), 401);
    let status = status_when(&sidecar, |status| {
        status["history"]["total"]["requests"] == 1
    })
    .await;
    assert_eq!(sum(&status["history"]["rejected"]), 0);
    assert_eq!(status["history"]["total"]["errors"], 0);
    // The advice says what was kept, and what would send a token instead.
    let errors = status["errors"].as_array().unwrap();
    let titles: Vec<_> = errors.iter().map(|error| &error["title"]).collect();
    assert_eq!(titles, ["The upstream rejects the app's own credential"]);
}

#[tokio::test]
async fn warnings_of_the_configuration_are_listed() {
    let (_metadata, _service, sidecar) =
        started(&["--route", "127.0.0.1:0=https://public.example"]).await;
    let status = json(&get(sidecar.admin(), "/status").await);
    let warnings = status["warnings"].as_array().unwrap();
    let warning = warnings[0].as_str().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warning.contains("https://public.example"), "{warning}");
    assert!(warning.contains("no token"), "{warning}");
    sidecar.logged(|line| line["message"] == *warning).await;
}

#[tokio::test]
async fn a_wrong_certificate_and_a_dns_failure_are_reported_with_advice() {
    let service = Service::start().await;
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    let untrusted = format!("tls.example.com:443:127.0.0.1:{}", service.address().port());
    let args = [
        "--rule",
        "*.example.com=access",
        "--connect-to",
        &untrusted,
        "--connect-to",
        "dns.example.com:443:nowhere.invalid:443",
    ];
    let sidecar = Sidecar::start(&metadata, &args).await;
    proxied(sidecar.proxy(), "http://tls.example.com/", &[]).await;
    proxied(sidecar.proxy(), "http://dns.example.com/", &[]).await;
    let error = error_titled(&sidecar, "The upstream's certificate is not valid").await;
    assert_eq!(error["error"], "tls_certificate_error");
    assert!(error["advice"].as_str().unwrap().contains("--upstream-ca"));
    let error = error_titled(&sidecar, "The upstream's name does not resolve").await;
    assert_eq!(
        (&error["error"], &error["status"]),
        (&"dns_error".into(), &502.into())
    );
    assert!(error["advice"].as_str().unwrap().contains("Cloud DNS"));
}

#[tokio::test]
async fn a_blind_tunnel_without_a_token_is_reported_with_advice() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let connect = "CONNECT svc.a.run.app:443 HTTP/1.1\r\nHost: svc.a.run.app:443\r\nConnection: close\r\n\r\n";
    let stream = tokio::net::TcpStream::connect(sidecar.proxy())
        .await
        .unwrap();
    let (_reader, mut writer) = stream.into_split();
    tokio::io::AsyncWriteExt::write_all(&mut writer, connect.as_bytes())
        .await
        .unwrap();
    let error = error_titled(&sidecar, "A call was sent without its token").await;
    assert_eq!(error["about"], "https://svc.a.run.app");
    assert_eq!(
        (&error["calls"], &error["recent_calls"]),
        (&1.into(), &1.into())
    );
    let advice = error["advice"].as_str().unwrap();
    assert!(
        advice.contains("http://svc.a.run.app") && advice.contains("--intercept"),
        "{advice}"
    );
}

#[tokio::test]
async fn the_status_has_no_secrets() {
    let metadata = Metadata::start().await;
    metadata.script(
        Kind::Access,
        [Answer::access("ya29.very-secret-value", 100)],
    );
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let service = Service::answering(|_| reply(401, "no")).await;
    let mut args = ROUTE.to_vec();
    args.extend(["--proxy-auth", "jane:hunter2"]);
    let sidecar = beside(&metadata, &service, &args).await;
    let credentials = ("proxy-authorization", "Basic amFuZTpodW50ZXIy");
    let url = "http://storage.googleapis.com/path?secret-query";
    proxied(sidecar.proxy(), url, &[credentials]).await;
    proxied(sidecar.proxy(), url, &[]).await;
    get(sidecar.address("127.0.0.1:0/billing"), "/billing/x?hidden").await;
    error_titled(&sidecar, "The proxy requires credentials").await;
    error_titled(&sidecar, "The upstream rejects the token").await;
    let status = get(sidecar.admin(), "/status").await;
    let status = text(&status);
    for secret in [
        "very-secret",
        "ya29",
        "eyJ",
        "secret-query",
        "hidden",
        "hunter2",
        "amFuZTpodW50ZXIy",
    ] {
        assert!(!status.contains(secret), "{secret}: {status}");
    }
    assert!(status.contains("requires credentials"));
}

/// Collects the names of all members, at any depth.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                found.insert(name.clone());
                names(member, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_key_of_the_status_is_documented() {
    let (_metadata, _service, sidecar) = started(&ROUTE).await;
    proxied(sidecar.proxy(), "http://nowhere.invalid/", &[]).await;
    let status = status_when(&sidecar, |status| {
        let any = |list: &str| !status[list].as_array().unwrap().is_empty();
        any("errors") && any("tokens")
    })
    .await;
    let mut found = BTreeSet::new();
    names(&status, &mut found);
    assert!(found.len() > 60, "{found:?}");
    let page = include_str!("../../docs/status.md");
    let missing: Vec<_> = found
        .iter()
        .filter(|name| {
            !page.contains(&format!("`{name}`")) && !page.contains(&format!("`{name}[]`"))
        })
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[tokio::test]
async fn a_draining_sidecar_reports_it() {
    let (_metadata, service, sidecar) = started(&["--drain-timeout", "60s"]).await;
    let proxy = sidecar.proxy();
    let stuck = tokio::spawn(async move {
        let _ = proxied(proxy, "http://storage.googleapis.com/stuck", &[]).await;
    });
    service.arrived(1).await;
    sidecar.signal("TERM");
    let status = status_when(&sidecar, |status| status["state"] == "draining").await;
    assert_eq!(status["ready"], false);
    assert!(status["since"].as_str() > status["started"].as_str());
    assert_eq!(status["listeners"][0]["in_flight"], 1);
    stuck.abort();
}

#[tokio::test]
async fn the_status_is_read_only_and_served_under_own_names() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let ask = |method: &'static str, host: &'static str, origin: Option<&'static str>| {
        let mut request = Request::builder()
            .method(method)
            .uri("/status")
            .header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        send(sidecar.admin(), request.body(Bytes::new()).unwrap())
    };
    let code = |response: Response<Bytes>| response.status().as_u16();
    let good = ask("GET", "localhost", None).await;
    assert_eq!(good.headers()["content-type"], "application/json");
    assert_eq!(good.headers()["cache-control"], "no-store");
    assert_eq!(code(good), 200);
    assert_eq!(code(ask("POST", "localhost", None).await), 405);
    assert_eq!(code(ask("GET", "evil.test", None).await), 421);
    assert_eq!(
        code(ask("GET", "localhost", Some("https://evil.test")).await),
        403
    );
}

#[tokio::test]
async fn the_page_can_load_only_its_own_resources() {
    let (_metadata, _service, sidecar) = started(&[]).await;
    let page = get(sidecar.admin(), "/").await;
    let header = |name: &str| page.headers()[name].to_str().unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("referrer-policy"), "no-referrer");
    let policy = header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    for part in [
        "script-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    assert!(text(&page).starts_with("<!doctype html>"));
    let head = Request::head("/")
        .header("host", "localhost")
        .body(Bytes::new());
    assert_eq!(send(sidecar.admin(), head.unwrap()).await.status(), 200);
    let post = Request::post("/")
        .header("host", "localhost")
        .body(Bytes::new());
    assert_eq!(send(sidecar.admin(), post.unwrap()).await.status(), 405);
}
