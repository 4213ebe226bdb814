use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::*;
use crate::config::{LogFormat, LogLevel};
use crate::telemetry::log::tests::{json, lines, text};

/// A request to billing that took 123 ms and ended so.
fn with_record<R>(code: Code, log: impl FnOnce(AccessRecord<'_>) -> R) -> R {
    let destination =
        Destination::parse("https://app:passw0rd@billing.run.app/v1/bill?key=s3cret").unwrap();
    log(AccessRecord {
        method: Some(&Method::GET),
        destination: Some(&destination),
        code,
        request_bytes: 0,
        response_bytes: 5_000_000_000,
        latency: Duration::from_micros(123_000),
        protocol: Version::HTTP_11,
        user_agent: Some(&HeaderValue::from_static("curl/8")),
        listener: "8081",
        credential: Some(Credential::Id),
        rule: Some("built-in *.run.app"),
        token: None,
        problem: None,
        trace: None,
    })
}

fn ok() -> Code {
    StatusCode::OK.into()
}

#[test]
fn a_request_is_an_http_request_of_cloud_logging() {
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", HeaderValue::from_static(parent));
    let line = json(|| {
        with_record(ok(), |record| {
            let trace = TraceContext::from_headers(&headers);
            access_log(AccessLog::All, &AccessRecord { trace, ..record });
        });
    });
    assert_eq!(
        line,
        json!({
            "severity": "INFO",
            "message": "GET https://billing.run.app/v1/bill?… 200 in 0.123s",
            "logging.googleapis.com/trace": "4bf92f3577b34da6a3ce929d0e0e4736",
            "logging.googleapis.com/spanId": "00f067aa0ba902b7",
            "logging.googleapis.com/trace_sampled": true,
            "listener": "8081",
            "credential": "id",
            "rule": "built-in *.run.app",
            "httpRequest": {
                "requestMethod": "GET",
                "requestUrl": "https://billing.run.app/v1/bill?…",
                "status": 200,
                "requestSize": "0",
                "responseSize": "5000000000",
                "userAgent": "curl/8",
                "latency": "0.123s",
                "protocol": "HTTP/1.1",
            },
        })
    );
}

#[test]
fn the_text_format_of_a_request_is_one_sentence() {
    let line = text(|| with_record(ok(), |record| access_log(AccessLog::All, &record)));
    assert_eq!(
        line,
        "INFO  GET https://billing.run.app/v1/bill?… 200 in 0.123s listener=8081 credential=id \
         rule=\"built-in *.run.app\" requestSize=0 responseSize=5000000000 userAgent=curl/8 protocol=HTTP/1.1"
    );
}

#[test]
fn an_error_of_the_sidecar_is_logged_with_its_kind_and_detail() {
    let line = json(|| {
        with_record(StatusCode::SERVICE_UNAVAILABLE.into(), |record| {
            let detail = "token: the metadata server is \"down\"";
            let problem = Problem::new(ErrorKind::TokenUnavailable, detail);
            let problem = Some(&problem);
            access_log(AccessLog::Errors, &AccessRecord { problem, ..record });
        });
    });
    assert_eq!(line["severity"], "ERROR");
    assert_eq!(line["advice"], ErrorKind::TokenUnavailable.advice());
    assert_eq!(line["help"], ErrorKind::TokenUnavailable.page());
    assert_eq!(line["error"], "proxy_internal_error");
    assert_eq!(line["detail"], "token: the metadata server is \"down\"");
    assert_eq!(line["httpRequest"]["status"], 503);
}

#[test]
fn a_cancelled_request_has_no_status_and_is_no_error() {
    let line = json(|| {
        with_record(Code::CANCELLED, |record| {
            access_log(AccessLog::All, &record);
        });
    });
    assert_eq!(line["severity"], "INFO");
    assert_eq!(
        line["message"],
        "GET https://billing.run.app/v1/bill?… cancelled in 0.123s"
    );
    assert_eq!(line["httpRequest"].get("status"), None);
}

#[test]
fn only_failures_of_the_sidecar_have_severity_error() {
    let severity = |code: u16, kind: Option<ErrorKind>| {
        let line = json(|| {
            with_record(StatusCode::from_u16(code).unwrap().into(), |record| {
                let problem = kind.map(|kind| Problem::new(kind, ""));
                let problem = problem.as_ref();
                access_log(AccessLog::All, &AccessRecord { problem, ..record });
            });
        });
        line["severity"].as_str().unwrap().to_owned()
    };
    assert_eq!(severity(200, None), "INFO");
    assert_eq!(severity(404, None), "INFO");
    assert_eq!(severity(401, None), "INFO");
    assert_eq!(severity(500, None), "WARNING");
    assert_eq!(severity(503, None), "WARNING");
    assert_eq!(severity(700, None), "WARNING");
    assert_eq!(severity(407, Some(ErrorKind::ProxyAuthRequired)), "INFO");
    assert_eq!(severity(403, Some(ErrorKind::Denied)), "WARNING");
    assert_eq!(severity(502, Some(ErrorKind::ConnectionRefused)), "WARNING");
    assert_eq!(severity(500, Some(ErrorKind::Internal)), "ERROR");
    assert_eq!(severity(502, Some(ErrorKind::TokenRefused)), "ERROR");
}

#[test]
fn the_mode_decides_which_requests_are_logged() {
    let logged = |mode, code, problem: Option<&Problem>| {
        let lines = lines(LogFormat::Json, LogLevel::Info, false, || {
            with_record(code, |record| {
                access_log(mode, &AccessRecord { problem, ..record });
            });
        });
        !lines.is_empty()
    };
    let errors = |code: StatusCode| logged(AccessLog::Errors, code.into(), None);
    assert!(!errors(StatusCode::OK));
    assert!(!errors(StatusCode::SWITCHING_PROTOCOLS));
    assert!(!errors(StatusCode::PERMANENT_REDIRECT));
    assert!(errors(StatusCode::BAD_REQUEST));
    assert!(errors(StatusCode::BAD_GATEWAY));
    assert!(!logged(AccessLog::Errors, Code::CANCELLED, None));
    assert!(logged(AccessLog::All, Code::CANCELLED, None));
    let broken = Problem::new(ErrorKind::ConnectionTerminated, "half a body");
    let broken = Some(&broken);
    assert!(logged(AccessLog::Errors, ok(), broken));
    assert!(logged(AccessLog::All, ok(), None));
    assert!(!logged(
        AccessLog::Off,
        StatusCode::BAD_GATEWAY.into(),
        broken
    ));
}

#[test]
fn a_request_without_a_destination_is_logged() {
    let line = json(|| {
        let record = AccessRecord {
            method: Some(&Method::from_bytes(b"BREW").unwrap()),
            destination: None,
            code: StatusCode::BAD_REQUEST.into(),
            request_bytes: 0,
            response_bytes: 0,
            latency: Duration::ZERO,
            protocol: Version::HTTP_2,
            user_agent: Some(&HeaderValue::from_bytes(b"\xff\"\t").unwrap()),
            listener: "proxy",
            credential: None,
            rule: None,
            token: None,
            problem: Some(&Problem::new(ErrorKind::BadRequest, "two Host headers")),
            trace: None,
        };
        access_log(AccessLog::Errors, &record);
    });
    assert_eq!(
        line,
        json!({
            "severity": "WARNING",
            "message": "BREW - 400 in 0s",
            "listener": "proxy",
            "error": "http_request_error",
            "detail": "two Host headers",
            "advice": ErrorKind::BadRequest.advice(),
            "help": ErrorKind::BadRequest.page(),
            "httpRequest": {
                "requestMethod": "BREW",
                "status": 400,
                "requestSize": "0",
                "responseSize": "0",
                "userAgent": "\u{fffd}\"\t",
                "latency": "0s",
                "protocol": "HTTP/2",
            },
        })
    );
}

#[test]
fn a_tunnel_is_shown_as_its_authority() {
    let line = json(|| {
        with_record(ok(), |record| {
            let method = Some(&Method::CONNECT);
            access_log(AccessLog::All, &AccessRecord { method, ..record });
        });
    });
    assert_eq!(line["httpRequest"]["requestUrl"], "billing.run.app:443");
    assert_eq!(line["message"], "CONNECT billing.run.app:443 200 in 0.123s");
}

#[test]
fn query_and_user_info_are_not_logged() {
    let shown = |url: &str| Redacted(&Destination::parse(url).unwrap()).to_string();
    assert_eq!(
        shown("https://u:p@a.com:8443/x?sig=1"),
        "https://a.com:8443/x?…"
    );
    assert_eq!(shown("http://a.com/x?"), "http://a.com/x?…");
    assert_eq!(shown("http://[::1]/"), "http://[::1]/");
    with_record(ok(), |record| {
        let debug = format!("{record:?} {:?}", Redacted(record.destination.unwrap()));
        assert!(
            !debug.contains("s3cret") && !debug.contains("passw0rd"),
            "{debug}"
        );
    });
}

#[test]
fn a_latency_is_in_seconds_without_trailing_zeros() {
    let latency = |micros| Latency(Duration::from_micros(micros)).to_string();
    assert_eq!(latency(0), "0s");
    assert_eq!(latency(1), "0.000001s");
    assert_eq!(latency(350), "0.00035s");
    assert_eq!(latency(1_500_000), "1.5s");
    assert_eq!(latency(60_000_000), "60s");
}

#[test]
fn a_failure_of_the_upstream_links_to_its_explanation() {
    let help = |status: u16| {
        let code = StatusCode::from_u16(status).unwrap().into();
        json(|| with_record(code, |record| access_log(AccessLog::All, &record)))["help"].clone()
    };
    assert_eq!(help(503), LogEntry::UpstreamFailed.page());
    assert!(help(404).is_null() && help(200).is_null());
}
