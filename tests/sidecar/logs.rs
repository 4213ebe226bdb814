//! The log: the lines of the start, the requests that are logged, and their traces.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::http1::between;
use super::started;
use super::support::app::{get, proxied};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

fn requests(sidecar: &Sidecar) -> Vec<Value> {
    let mut lines = sidecar.log();
    lines.retain(|line| line["httpRequest"].is_object());
    lines
}

/// Starts a sidecar whose log only the test reads.
fn spawned(metadata: &Metadata, args: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["--proxy", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(args)
        .env_clear()
        .env("GCE_METADATA_HOST", metadata.address().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines)
}

#[tokio::test]
async fn the_start_log_lists_listeners_rules_and_warnings() {
    let args = [
        "--route",
        "127.0.0.1:0=https://svc.a.run.app",
        "--route",
        "127.0.0.1:0/silent=https://silent.example.com",
        "--rule",
        "iap.example.com=id,audience=1-x.apps.googleusercontent.com",
        "--log-level",
        "info",
    ];
    let (_metadata, _service, sidecar) = started(&args).await;
    let log = sidecar.log();
    let said: Vec<&str> = log.iter().map(message).collect();
    let expected = [
        format!("forward proxy: HTTP_PROXY=http://{}", sidecar.proxy()),
        "calls through the forward proxy get: iap.example.com id, *.googleapis.com access, *.run.app id, \
         *.cloudfunctions.net id, everything else none"
            .to_owned(),
        format!(
            "route http://{} to https://svc.a.run.app/: an ID token for https://svc.a.run.app (built-in *.run.app)",
            sidecar.address("127.0.0.1:0")
        ),
        format!("admin: http://{}/", sidecar.admin()),
    ];
    for line in &expected {
        assert!(said.contains(&line.as_str()), "{line} is not in {said:#?}");
    }
    let warned: Vec<_> = log
        .iter()
        .filter(|line| line["severity"] == "WARNING")
        .collect();
    let help = |line: &&Value| line["help"].as_str().unwrap().to_owned();
    let entries: Vec<String> = warned.iter().map(help).collect();
    assert!(
        entries[0].ends_with("/docs/errors.md#log-configuration-warning"),
        "{entries:?}"
    );
    let warned: Vec<&str> = warned.into_iter().map(message).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("calls to https://silent.example.com get no token"),
        "{warned:?}"
    );
    let blind = said
        .iter()
        .find(|line| line.starts_with("CONNECT is a blind tunnel"));
    assert!(blind.unwrap().contains("--intercept"));
    assert!(said.len() <= 10, "a few lines: {said:#?}");
}

#[tokio::test]
async fn a_request_belongs_to_the_trace_of_the_app() {
    let (_metadata, _service, sidecar) = started(&["--access-log", "all"]).await;
    let url = "http://storage.googleapis.com/";
    proxied(sidecar.proxy(), url, &[]).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    proxied(sidecar.proxy(), url, &[("traceparent", &parent)]).await;
    let cloud = format!("{TRACE}/1;o=1");
    proxied(sidecar.proxy(), url, &[("x-cloud-trace-context", &cloud)]).await;
    for span in ["b7ad6b7169203331", "0000000000000001"] {
        let line = sidecar
            .logged(|line| line["logging.googleapis.com/spanId"] == span)
            .await;
        assert_eq!(line["httpRequest"]["status"], 200);
        assert_eq!(
            line["logging.googleapis.com/trace"],
            format!("projects/test-project/traces/{TRACE}")
        );
        assert_eq!(line["logging.googleapis.com/trace_sampled"], true);
    }
}

#[tokio::test]
async fn the_access_log_has_the_url_that_was_sent() {
    let (_metadata, _service, sidecar) = started(&["--access-log", "all"]).await;
    for (url, sent) in [
        (
            "http://storage.googleapis.com/upgraded",
            "https://storage.googleapis.com/upgraded",
        ),
        (
            "http://oauth2.googleapis.com/without-token",
            "http://oauth2.googleapis.com/without-token",
        ),
    ] {
        proxied(sidecar.proxy(), url, &[]).await;
        let path = url.rsplit('/').next().unwrap();
        let line = sidecar
            .logged(|line| {
                let logged = line["httpRequest"]["requestUrl"].as_str();
                logged.is_some_and(|logged| logged.ends_with(path))
            })
            .await;
        assert_eq!(line["httpRequest"]["requestUrl"], sent);
    }
}

#[tokio::test]
async fn the_access_log_has_all_requests_only_errors_or_none() {
    for (mode, expected) in [("off", 0), ("errors", 1), ("all", 2)] {
        let route = "127.0.0.1:0/here=https://svc.a.run.app";
        let (_metadata, _service, sidecar) =
            started(&["--route", route, "--access-log", mode]).await;
        let address = sidecar.address("127.0.0.1:0/here");
        assert_eq!(get(address, "/here/").await.status(), 200);
        assert_eq!(get(address, "/nowhere").await.status(), 404);
        sidecar
            .counted(r#"sidentity_requests_total{code="404",credential="none",listener="127.0.0.1:0"} 1"#)
            .await;
        sidecar.signal("HUP");
        // All lines about the requests precede this one.
        sidecar
            .logged(|line| message(line).starts_with("reloaded"))
            .await;
        assert_eq!(requests(&sidecar).len(), expected, "{mode}");
    }
}

#[tokio::test]
async fn the_text_log_is_plain_without_a_terminal() {
    let metadata = Metadata::start().await;
    let (_child, mut lines) = spawned(&metadata, &["--log-format", "text"]);
    let mut said = Vec::new();
    while said
        .last()
        .is_none_or(|line: &String| !line.contains("admin: http://"))
    {
        said.push(lines.next_line().await.unwrap().unwrap());
    }
    for line in &said {
        assert!(!line.contains('\u{1b}'), "{line:?}");
        // 12:34:56.789 INFO  message
        let (time, rest) = line.split_at(12);
        assert!(
            time.chars().all(|c| c.is_ascii_digit() || ":.".contains(c)),
            "{line}"
        );
        let (level, message) = rest.split_at(7);
        assert!([" INFO  ", " WARN  "].contains(&level), "{line}");
        assert!(!message.starts_with(' '), "{line}");
    }
    assert!(said.len() <= 6, "{said:#?}");
}

/// A pipe whose reader has stalled is full after some lines.
#[tokio::test]
async fn a_reader_of_the_log_that_stalls_stops_neither_calls_nor_the_end() {
    let metadata = Metadata::start().await;
    let args = ["--log-format", "json", "--access-log", "all"];
    let (mut child, mut stderr) = spawned(&metadata, &args);
    let mut addresses = Vec::new();
    while addresses.len() < 2 {
        let line = stderr.next_line().await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = line["address"].as_str() {
            addresses.push((line["listener"].clone(), address.parse().unwrap()));
        }
    }
    let proxy = addresses
        .iter()
        .find(|(name, _)| name == "proxy")
        .unwrap()
        .1;
    // Each is answered with 502 or 504 and logged. A pipe holds 64 KiB, and a line is longer than its URL.
    let path = "x".repeat(4000);
    for _ in 0..40 {
        let response = proxied(proxy, &format!("http://127.0.0.1:1/{path}"), &[]).await;
        assert!(response.status().is_server_error());
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(15), child.wait());
    assert!(ended.await.expect("it ends").unwrap().success());
}

#[tokio::test]
async fn a_request_for_the_whole_server_is_logged_without_a_path() {
    let (port, _metadata, sidecar, mut app) = between(&["--access-log", "all"]).await;
    let at = port.address();
    app.send(format!(
        "OPTIONS http://{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"
    ))
    .await;
    let mut upstream = port.accept().await;
    let head = upstream.head().await;
    assert!(head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{head}");
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    app.message().await;
    let line = sidecar.logged(|line| line["httpRequest"].is_object()).await;
    assert_eq!(
        line["httpRequest"]["requestUrl"],
        format!("http://{at}").as_str()
    );
}
