//! SIGHUP: the file is read again while the app calls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::app::{get, json, proxied, text};
use super::support::frames::{GOAWAY, HEADERS, RawHttp2, get as get_block};
use super::support::metadata::{Answer, Kind, Metadata, audience_of};
use super::support::service::Service;
use super::support::sidecar::Sidecar;
use super::support::wire::{Port, Wire};
use super::{beside, is_for};

const ROUTE: &str = "127.0.0.1:0";

/// A sidecar with a file that the test can replace.
struct Stage {
    metadata: Metadata,
    service: Service,
    sidecar: Sidecar,
    file: PathBuf,
    _folder: TempDir,
}

impl Stage {
    async fn start(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sidentity.yaml");
        std::fs::write(&file, yaml).unwrap();
        let metadata = Metadata::start().await;
        metadata.script(Kind::Identity, [Answer::identity(3600)]);
        let service = Service::start().await;
        let path = file.display().to_string();
        let sidecar = beside(&metadata, &service, &["--config", &path]).await;
        Self {
            metadata,
            service,
            sidecar,
            file,
            _folder: folder,
        }
    }

    /// Writes the file and waits until the sidecar has processed it.
    async fn reload(&self, yaml: &str) -> Vec<Value> {
        std::fs::write(&self.file, yaml).unwrap();
        let before = self.sidecar.log().len();
        self.sidecar.signal("HUP");
        self.sidecar.logged_since(before, is_the_end_of_it).await;
        self.sidecar.log().split_off(before)
    }

    /// Returns the audience of the token of the last call.
    fn audience(&self) -> Option<String> {
        let seen = self.service.seen();
        let sent = seen.last()?.header("authorization")?;
        Some(audience_of(sent.strip_prefix("Bearer ")?))
    }
}

fn is_the_end_of_it(line: &Value) -> bool {
    message(line).starts_with("reloaded: ") || message(line).starts_with("reload failed")
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Returns an address without a listener.
fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn route(options: &str) -> String {
    format!(
        "routes:\n  - {{listen: \"{ROUTE}\", upstream: \"https://svc.example.com\"{options}}}\n"
    )
}

#[tokio::test]
async fn a_routes_audience_and_a_rule_change_without_a_restart() {
    let rule = |credential: &str| {
        format!("rules: [{{host: other.example.com, credential: {credential}}}]\n")
    };
    let stage = Stage::start(&(route(", audience: https://one.test") + &rule("deny"))).await;
    let (address, proxy) = (stage.sidecar.address(ROUTE), stage.sidecar.proxy());
    get(address, "/").await;
    assert_eq!(stage.audience().as_deref(), Some("https://one.test"));
    assert_eq!(
        proxied(proxy, "http://other.example.com/", &[])
            .await
            .status(),
        403
    );

    let yaml = route(", audience: https://two.test") + &rule("id");
    let said = stage.reload(&yaml).await;
    get(address, "/").await;
    assert_eq!(stage.audience().as_deref(), Some("https://two.test"));
    assert_eq!(
        proxied(proxy, "http://other.example.com/", &[])
            .await
            .status(),
        200
    );
    assert_eq!(
        stage.audience().as_deref(),
        Some("https://other.example.com")
    );
    assert!(
        said.iter()
            .any(|line| message(line).contains("ID token for https://two.test"))
    );
    assert!(
        !said.iter().any(|line| message(line).contains("restart")),
        "{said:#?}"
    );
    // The explanation must agree with the decision.
    let explained = get(
        stage.sidecar.admin(),
        "/explain?url=https://other.example.com/",
    )
    .await;
    assert_eq!(json(&explained)["credential"], "id");

    // A removed rule has no effect.
    stage.reload(&(route("") + "unmatched: deny\n")).await;
    assert_eq!(
        proxied(proxy, "http://other.example.com/", &[])
            .await
            .status(),
        403
    );
    get(address, "/").await;
    assert_eq!(stage.audience(), None);
}

#[tokio::test]
async fn tokens_and_counters_survive_a_reload() {
    let stage = Stage::start(&route(", audience: https://one.test")).await;
    let address = stage.sidecar.address(ROUTE);
    get(address, "/").await;
    for _ in 0..3 {
        stage
            .reload(&route(", audience: https://one.test, existing: replace"))
            .await;
        get(address, "/").await;
    }
    assert_eq!(stage.metadata.count(Kind::Identity), 1);
    stage
        .sidecar
        .counted(
            "sidentity_requests_total{code=\"200\",credential=\"id\",listener=\"127.0.0.1:0\"} 4",
        )
        .await;
    stage
        .sidecar
        .counted("sidentity_upstream_connects_total{outcome=\"ok\"} 1")
        .await;
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_every_error_has_its_place() {
    let stage = Stage::start(&route(", audience: https://one.test")).await;
    let said = stage
        .reload("routes:\n  - {listen: 99999, upstream: \"https://x.test\"}\nrulez: []\nunmatched: loud\n")
        .await;
    let errors: Vec<&str> = said
        .iter()
        .filter(|line| line["severity"] == "ERROR")
        .map(message)
        .collect();
    let file = stage.file.display().to_string();
    for (problem, line) in errors.iter().zip([2, 3, 4]) {
        assert!(
            errors
                .iter()
                .any(|error| error.starts_with(&format!("{file}:{line}:"))),
            "{problem}: {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert_eq!(
        *errors.last().unwrap(),
        "reload failed (3 problems): the previous configuration stays in effect; correct them and send SIGHUP again"
    );
    get(stage.sidecar.address(ROUTE), "/").await;
    assert_eq!(stage.audience().as_deref(), Some("https://one.test"));

    // A missing file changes nothing either.
    std::fs::remove_file(&stage.file).unwrap();
    let before = stage.sidecar.log().len();
    stage.sidecar.signal("HUP");
    stage.sidecar.logged_since(before, is_the_end_of_it).await;
    assert_eq!(get(stage.sidecar.address(ROUTE), "/").await.status(), 200);
}

#[tokio::test]
async fn changed_listeners_need_a_restart_and_are_named() {
    let stage = Stage::start(&route(", audience: https://one.test")).await;
    let free = free_port();
    let said = stage
        .reload(&format!(
            "routes:\n  - {{listen: \"{free}\", upstream: \"https://new.example.com\"}}\nmax_connections: 7\nunmatched: deny\n"
        ))
        .await;
    let waiting: Vec<&str> = said
        .iter()
        .filter(|line| line["severity"] == "WARNING")
        .map(message)
        .filter(|message| message.contains(" takes effect after a restart"))
        .collect();
    assert_eq!(waiting.len(), 3, "{said:#?}");
    assert!(
        waiting[0].contains(&format!("route {free} to https://new.example.com")),
        "{waiting:?}"
    );
    assert!(
        waiting[1].contains("route 127.0.0.1:0 to https://svc.example.com"),
        "{waiting:?}"
    );
    assert!(waiting[2].contains("--max-connections"), "{waiting:?}");
    assert!(TcpStream::connect(free).await.is_err());
    get(stage.sidecar.address(ROUTE), "/").await;
    assert_eq!(
        stage.audience().as_deref(),
        Some("https://one.test"),
        "it goes on as it was"
    );
    // A change that needs no listener takes effect.
    let refused = proxied(stage.sidecar.proxy(), "http://elsewhere.example.com/", &[]).await;
    assert_eq!(refused.status(), 403);
}

/// The CA is created at the start.
#[tokio::test]
async fn a_domain_added_by_a_reload_is_not_intercepted_and_log_and_explanation_say_so() {
    let stage = Stage::start("intercept: true\n").await;
    let said = stage
        .reload("intercept: true\nrule: [new.example.com=id]\n")
        .await;
    let warnings = said.iter().filter(|line| line["severity"] == "WARNING");
    let warnings = warnings.map(message);
    let warnings: Vec<&str> = warnings
        .filter(|message| message.contains("new.example.com"))
        .collect();
    assert_eq!(
        warnings,
        [
            "--intercept for new.example.com takes effect after a restart, because the CA was created at the start; until \
             then a CONNECT tunnel to it carries no token"
        ]
    );
    let how = async |host: &str| {
        let path = format!("/explain?url=https://{host}/");
        let explained = json(&get(stage.sidecar.admin(), &path).await);
        explained["how"].as_str().unwrap().to_owned()
    };
    let new = how("new.example.com").await;
    assert!(
        new.contains("is a blind tunnel without a token until a restart"),
        "{new}"
    );
    let known = how("svc.a.run.app").await;
    assert!(
        known.contains("An https:// URL gets the token with HTTPS_PROXY"),
        "{known}"
    );
}

#[tokio::test]
async fn a_new_prefix_on_an_existing_port_needs_no_restart() {
    let address = free_port();
    let line = |prefix: &str, upstream: &str| {
        format!(
            "  - {{listen: \"{address}{prefix}\", upstream: \"https://{upstream}.example.com\"}}\n"
        )
    };
    let first = format!("routes:\n{}", line("", "svc"));
    let stage = Stage::start(&first).await;
    get(address, "/v2/x").await;
    assert_eq!(stage.service.only().target, "/v2/x");
    let said = stage.reload(&(first + &line("/v2", "two"))).await;
    assert!(
        !said.iter().any(|line| message(line).contains("restart")),
        "{said:#?}"
    );
    get(address, "/v2/x").await;
    let seen = stage.service.seen();
    assert_eq!(seen.last().unwrap().host, "two.example.com");
    assert_eq!(seen.last().unwrap().target, "/x");
}

#[tokio::test]
async fn no_request_fails_during_repeated_reloads() {
    let yaml = |audience: &str| route(&format!(", audience: {audience}"));
    let stage = Stage::start(&yaml("https://one.test")).await;
    let address = stage.sidecar.address(ROUTE);
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let done = done.clone();
            tokio::spawn(async move {
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    let response = get(address, "/").await;
                    assert_eq!(response.status(), 200, "{}", text(&response));
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for round in 0..10 {
        stage.service.arrived(20 * round).await;
        let audience = ["https://two.test", "https://one.test"][round % 2];
        stage.reload(&yaml(audience)).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    let seen = stage.service.seen();
    assert_eq!(seen.len(), calls);
    for audience in ["https://one.test", "https://two.test"] {
        assert!(
            seen.iter()
                .any(|seen| is_for(seen.header("authorization"), audience)),
            "{audience}"
        );
    }
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization").is_some())
    );
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_configuration() {
    let stage = Stage::start(&route(", audience: https://one.test")).await;
    let mut app = TcpStream::connect(stage.sidecar.address(ROUTE))
        .await
        .unwrap();
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\nconnection: close\r\n\r\n01234";
    app.write_all(head.as_bytes()).await.unwrap();
    stage
        .sidecar
        .counted("sidentity_requests_in_flight{listener=\"127.0.0.1:0\"} 1")
        .await;
    stage.reload(&route(", credential: deny")).await;
    assert_eq!(get(stage.sidecar.address(ROUTE), "/").await.status(), 403);
    app.write_all(b"56789").await.unwrap();
    let mut answer = String::new();
    app.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(&*stage.service.only().body, b"0123456789");
    assert_eq!(stage.audience().as_deref(), Some("https://one.test"));
}

#[tokio::test]
async fn a_reload_changes_the_log_level() {
    let stage = Stage::start("access_log: errors\n").await;
    stage.reload("access_log: all\nunmatched: deny\n").await;
    proxied(stage.sidecar.proxy(), "http://storage.googleapis.com/", &[]).await;
    stage
        .sidecar
        .logged(|line| line["httpRequest"]["status"] == 200)
        .await;
}

#[tokio::test]
async fn without_a_file_sighup_ends_nothing() {
    let (_metadata, _service, sidecar) = super::started(&[]).await;
    sidecar.signal("HUP");
    sidecar.logged(is_the_end_of_it).await;
    assert_eq!(
        proxied(sidecar.proxy(), "http://storage.googleapis.com/", &[])
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_changed_idle_timeout_applies_to_open_and_new_http2_connections() {
    let stage = Stage::start("idle_timeout: 1h\n").await;
    let block = get_block("svc.a.run.app", "/");
    let mut open = RawHttp2::open(stage.sidecar.proxy(), 65_535).await;
    let timeout = std::time::Duration::from_secs(15);
    open.request(&block).await;
    open.frame_within(HEADERS, timeout).await.unwrap();
    let said = stage.reload("idle_timeout: 500ms\n").await;
    assert!(
        !said.iter().any(|line| message(line).contains("restart")),
        "{said:#?}"
    );
    let mut new = RawHttp2::open(stage.sidecar.proxy(), 65_535).await;
    for app in [&mut new, &mut open] {
        app.request(&block).await;
        app.frame_within(HEADERS, timeout).await.unwrap();
        app.frame_within(GOAWAY, timeout).await.unwrap();
    }
}

/// Makes a call to this upstream through the proxy. Returns both connections, or the status of the response to the app.
async fn held(stage: &Stage, port: &Port) -> Result<(Wire, Wire), String> {
    let mut app = Wire::open(stage.sidecar.proxy()).await;
    let at = port.address();
    app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
        .await;
    tokio::select! {
        mut upstream = port.accept() => {
            upstream.head().await;
            Ok((app, upstream))
        }
        (head, body) = app.message() => Err(head + &body),
    }
}

async fn answered(stage: &Stage, port: &Port) -> Wire {
    let (mut app, mut upstream) = held(stage, port).await.unwrap();
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(app.message().await.1, "ok");
    upstream
}

#[tokio::test]
async fn a_changed_memory_budget_applies_to_the_next_call() {
    let stage = Stage::start("max_memory: 64Mi\n").await;
    let port = Port::open().await;
    let mut calls = Vec::new();
    for _ in 0..30 {
        calls.push(held(&stage, &port).await.unwrap());
    }
    // 30 connections of an app and 30 to an upstream exceed this budget.
    let said = stage.reload("max_memory: 1Mi\n").await;
    assert!(!said.iter().any(|line| message(line).contains("restart")));
    let Err(refused) = held(&stage, &port).await else {
        panic!("it was not refused");
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("--max-memory"), "{refused}");
    stage.reload("max_memory: 64Mi\n").await;
    answered(&stage, &port).await;
}

#[tokio::test]
async fn a_changed_idle_connection_limit_applies_to_open_and_new_ones() {
    let stage = Stage::start("max_idle_connections: 8\n").await;
    let ports = [
        Port::open().await,
        Port::open().await,
        Port::open().await,
        Port::open().await,
    ];
    let mut open = Vec::new();
    for port in &ports {
        open.push(answered(&stage, port).await);
    }
    let said = stage.reload("max_idle_connections: 2\n").await;
    assert!(!said.iter().any(|line| message(line).contains("restart")));
    let mut new = Vec::new();
    for port in &ports {
        new.push(answered(&stage, port).await);
    }
    for upstream in open.iter_mut().chain(&mut new[..2]) {
        assert_eq!(upstream.rest().await, "");
    }
    // The last two are reused: their ports accept no other connection.
    for (port, upstream) in ports.iter().zip(&mut new).skip(2) {
        let at = port.address();
        let mut app = Wire::open(stage.sidecar.proxy()).await;
        app.send(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n"))
            .await;
        upstream.head().await;
        upstream
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(app.message().await.1, "ok");
    }
}
