//! The output of a whole process on stderr: its log, its panics, and never a token.

// Clippy's exceptions for tests do not apply to functions that are not tests themselves.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sidentity::config::{AccessLog, Log, LogFormat, LogLevel};
use sidentity::destination::Destination;
use sidentity::diagnostics::{AuthRejection, NoTokenReason};
use sidentity::error::{Error, ErrorKind};
use sidentity::policy::{Credential, CredentialName, Principal, TokenKey, TokenKind};
use sidentity::telemetry::{
    AccessRecord, Code, Fetch, Lookup, Metrics, RateLimiter, access_log, auth_rejected, init,
    set_project, tunnel_without_token,
};

/// A test with this variable is the observed process.
const CHILD: &str = "SIDENTITY_TEST_CHILD";

/// A token that must not be printed, not even its first part.
const PLANTED: &str = "ya29.c0ASRK0GbPLANTED";

fn log(format: LogFormat, level: LogLevel) -> Log {
    Log {
        format,
        level,
        access: AccessLog::All,
    }
}

/// Runs the test of this name once more in its own process, with `scenario` in its place, and returns the output of
/// that process. In that process it returns `None`.
fn process(test: &str, stderr: Stdio, scenario: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).as_deref() == Some(OsStr::new(test)) {
        scenario();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .stderr(stderr)
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(output)
}

fn lines(output: &Output) -> Vec<Value> {
    str::from_utf8(&output.stderr)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn panic_in_a_thread(panic: fn()) {
    assert!(std::thread::spawn(panic).join().is_err());
}

#[test]
fn a_panic_is_one_log_line_without_request_data() {
    let test = "a_panic_is_one_log_line_without_request_data";
    let output = process(test, Stdio::piped(), || {
        init(&log(LogFormat::Json, LogLevel::Error));
        panic_in_a_thread(|| panic!("the impossible"));
        panic_in_a_thread(|| panic!("bad header {PLANTED}"));
        panic_in_a_thread(|| assert!(PLANTED.parse::<u16>().is_ok(), "{PLANTED}"));
        panic_in_a_thread(|| std::panic::panic_any(PLANTED.to_owned()));
    });
    let Some(output) = output else { return };
    let lines = lines(&output);
    let message = |line: &Value| line["message"].as_str().unwrap().to_owned();
    let withheld = "panicked: (the message may quote a request and is withheld)";
    assert_eq!(
        lines.iter().map(message).collect::<Vec<_>>(),
        ["panicked: the impossible", withheld, withheld, withheld]
    );
    for line in &lines {
        assert_eq!(line["severity"], "ERROR");
        let location = line["location"].as_str().unwrap();
        assert!(location.contains("tests/telemetry.rs:"), "{location}");
    }
    assert!(!String::from_utf8_lossy(&output.stderr).contains(PLANTED));
}

#[test]
fn a_closed_stderr_does_not_stop_the_sidecar() {
    let test = "a_closed_stderr_does_not_stop_the_sidecar";
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = process(test, writer.into(), || {
        init(&log(LogFormat::Json, LogLevel::Info));
        for _ in 0..1_000 {
            tunnel_without_token(
                &RateLimiter::new(),
                &destination("https://a.run.app/").origin,
                NoTokenReason::InterceptOff,
            );
        }
        panic_in_a_thread(|| panic!("no reader"));
        println!("still here");
    });
    let Some(output) = output else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("still here"), "{stdout}");
}

#[test]
fn only_the_first_init_takes_effect() {
    let output = process("only_the_first_init_takes_effect", Stdio::piped(), || {
        init(&log(LogFormat::Json, LogLevel::Info));
        init(&log(LogFormat::Text, LogLevel::Error));
        tunnel_without_token(
            &RateLimiter::new(),
            &destination("https://a.run.app/").origin,
            NoTokenReason::InterceptOff,
        );
    });
    let Some(output) = output else { return };
    assert_eq!(lines(&output).len(), 1);
}

#[test]
fn dependencies_log_warnings_only() {
    let test = "dependencies_log_warnings_only";
    let output = process(test, Stdio::piped(), || {
        init(&log(LogFormat::Json, LogLevel::Trace));
        // This crate is not part of the product.
        tracing::error!("e");
        tracing::warn!(target: "sidentity::proxy", "w");
        tracing::info!(target: "sidentity::proxy", authorization = PLANTED, "i");
        tracing::debug!(authorization = PLANTED, "d");
        tracing::trace!(authorization = PLANTED, "t");
    });
    let Some(output) = output else { return };
    let lines = lines(&output);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["severity"], "ERROR");
    assert_eq!(lines[0]["target"], "telemetry");
    assert_eq!(lines[1]["severity"], "WARNING");
}

#[test]
fn no_json_line_and_no_metric_has_a_token() {
    let test = "no_json_line_and_no_metric_has_a_token";
    let output = process(test, Stdio::piped(), || carry_tokens(LogFormat::Json));
    let Some(output) = output else { return };
    let lines = lines(&output);
    assert_eq!(lines.len(), 5, "{lines:?}");
    let trace = "projects/my-project/traces/4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(lines[0]["logging.googleapis.com/trace"], trace);
    expect_no_token(&output);
}

#[test]
fn no_text_line_and_no_metric_has_a_token() {
    let test = "no_text_line_and_no_metric_has_a_token";
    let output = process(test, Stdio::piped(), || carry_tokens(LogFormat::Text));
    let Some(output) = output else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().count(), 5, "{stderr}");
    assert!(
        !stderr.contains('\x1b'),
        "colour where there is no terminal: {stderr}"
    );
    expect_no_token(&output);
}

fn expect_no_token(output: &Output) {
    for shown in [&output.stderr, &output.stdout] {
        let shown = String::from_utf8_lossy(shown);
        for secret in [PLANTED, &PLANTED[..12], "passw0rd"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("sidentity_requests_total{"), "{stdout}");
}

fn destination(url: &str) -> Destination {
    Destination::parse(url).unwrap()
}

/// Sends requests with a token in every possible place, logged and counted at the most verbose level.
fn carry_tokens(format: LogFormat) {
    init(&log(format, LogLevel::Trace));
    set_project("my-project");
    let metrics = Metrics::new();
    let url =
        format!("https://app:passw0rd@billing.run.app/v1?access_token={PLANTED}&key={PLANTED}");
    let destination = destination(&url);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(exchange_over_http1());
    runtime.block_on(exchange_over_http2());

    let trace = {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let header = (
            HeaderName::from_static("traceparent"),
            HeaderValue::from_static(parent),
        );
        sidentity::telemetry::TraceContext::from_headers(&[header].into_iter().collect())
    };
    let refused = Error::new(
        ErrorKind::TokenRefused,
        "token: the metadata server's response is not a token",
    );
    let record = AccessRecord {
        method: Some(&Method::GET),
        destination: Some(&destination),
        code: StatusCode::BAD_GATEWAY.into(),
        request_bytes: 1,
        response_bytes: 2,
        latency: Duration::from_millis(3),
        protocol: Version::HTTP_11,
        user_agent: None,
        listener: "proxy",
        credential: Some(Credential::Id),
        rule: Some("built-in *.run.app"),
        token: None,
        problem: Some(refused.problem()),
        trace,
    };
    access_log(AccessLog::All, &record);
    let code = Code::CANCELLED;
    access_log(AccessLog::All, &AccessRecord { code, ..record });
    let key = TokenKey {
        kind: TokenKind::Id {
            audience: Arc::from("https://billing.run.app"),
        },
        principal: Principal::Attached,
    };
    let limiter = RateLimiter::new();
    let rejection = AuthRejection {
        origin: &destination.origin,
        status: StatusCode::UNAUTHORIZED,
        header: &http::header::AUTHORIZATION,
        key: &key,
        account: None,
        iap: false,
        project: None,
        machine_scopes: None,
    };
    auth_rejected(&limiter, &rejection, &CredentialName::default(), None);
    tunnel_without_token(&limiter, &destination.origin, NoTokenReason::InterceptOff);
    panic_in_a_thread(|| panic!("no header value: {PLANTED}"));

    let listener = metrics.listener("proxy");
    listener.request_finished(Credential::Id, code, Duration::from_millis(3));
    metrics.token_lookup(Credential::Id, Lookup::Wait);
    metrics.token_fetched(Credential::Id, Fetch::Ok, Duration::from_millis(3));
    metrics.set_token_expiry(Credential::Id, Some(SystemTime::now()));
    metrics.auth_rejected(StatusCode::UNAUTHORIZED);
    println!("{}\n{record:?} {rejection:?}", metrics.render());
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"paid"))))
}

fn request() -> Request<Empty<Bytes>> {
    Request::get(format!("http://billing.run.app/v1?key={PLANTED}"))
        .header("authorization", format!("Bearer {PLANTED}"))
        .header("host", "billing.run.app")
        .body(Empty::new())
        .unwrap()
}

async fn exchange_over_http1() {
    let (app, upstream) = tokio::io::duplex(64 * 1024);
    let server = hyper::server::conn::http1::Builder::new();
    tokio::spawn(server.serve_connection(TokioIo::new(upstream), service_fn(answer)));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(app))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(sender.send_request(request()).await.unwrap().status(), 200);
}

async fn exchange_over_http2() {
    let (app, upstream) = tokio::io::duplex(64 * 1024);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(upstream), service_fn(answer)));
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(app));
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    assert_eq!(sender.send_request(request()).await.unwrap().status(), 200);
}
