//! The cost of telemetry for a request: its counters, and a log line that is written or not.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use sidentity::config::AccessLog::{All, Errors};
use sidentity::config::LogFormat::{Json, Text};
use sidentity::config::{Log, LogLevel};
use sidentity::destination::Destination;
use sidentity::policy::Credential;
use sidentity::telemetry::{AccessRecord, Code, Logger, Metrics, TraceContext, access_log};
use tracing::subscriber::with_default;

fn count(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    criterion.bench_function("count one request", |bencher| {
        bencher.iter(|| {
            let _in_flight = listener.request_started();
            let code = Code::from(black_box(StatusCode::OK));
            listener.request_finished(Credential::Id, code, black_box(Duration::from_millis(3)));
        });
    });
    criterion.bench_function("render the metrics", |bencher| {
        bencher.iter(|| metrics.render());
    });
}

fn trace(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", HeaderValue::from_static(parent));
    criterion.bench_function("read a traceparent", |bencher| {
        bencher.iter(|| TraceContext::from_headers(black_box(&headers)));
    });
}

fn log(criterion: &mut Criterion) {
    let Ok(destination) = Destination::parse("https://billing.run.app/v1/bill?key=1") else {
        return;
    };
    let record = AccessRecord {
        method: Some(&Method::GET),
        destination: Some(&destination),
        code: StatusCode::OK.into(),
        request_bytes: 0,
        response_bytes: 512,
        latency: Duration::from_micros(12_345),
        protocol: Version::HTTP_11,
        user_agent: Some(&HeaderValue::from_static("curl/8")),
        listener: "proxy",
        credential: Some(Credential::Id),
        rule: Some("built-in *.run.app"),
        token: None,
        problem: None,
        trace: None,
    };
    let logger = |format, level| {
        let log = Log {
            format,
            level,
            access: All,
        };
        Logger::new(&log, false, io::sink())
    };
    let mut bench = |name, format, level, mode| {
        with_default(logger(format, level), || {
            criterion.bench_function(name, |bencher| {
                bencher.iter(|| access_log(black_box(mode), black_box(&record)));
            });
        });
    };
    bench("access log, not asked for", Json, LogLevel::Info, Errors);
    bench("access log, below the level", Json, LogLevel::Warn, All);
    bench("access log, JSON", Json, LogLevel::Info, All);
    bench("access log, text", Text, LogLevel::Info, All);
}

criterion_group!(benches, count, trace, log);
criterion_main!(benches);
