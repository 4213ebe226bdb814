use std::collections::HashSet;

use super::*;
use crate::telemetry::Code;

mod exposition;

use exposition::Exposition;

const MS: Duration = Duration::from_millis(1);

fn status(code: u16) -> Code {
    StatusCode::from_u16(code).unwrap().into()
}

/// The lines of one family, without comments.
fn series(metrics: &Metrics, family: &str) -> Vec<String> {
    let text = metrics.render();
    let of_family = |line: &&str| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    text.lines().filter(of_family).map(str::to_owned).collect()
}

/// Everything that can be counted, counted.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    for name in ["proxy", "127.0.0.1:8081/v1", "unix:/run/a \"b\"\\c\n"] {
        let listener = metrics.listener(name);
        let _connection = listener.connection_opened();
        let _request = listener.request_started();
        for credential in [
            Credential::Access,
            Credential::Id,
            Credential::None,
            Credential::Deny,
        ] {
            for code in [
                status(200),
                status(599),
                status(999),
                Code::CANCELLED,
                Code::OTHER,
            ] {
                listener.request_finished(credential, code, MS);
            }
        }
    }
    ErrorKind::ALL
        .into_iter()
        .for_each(|kind| metrics.proxy_error(kind));
    SkipReason::ALL
        .into_iter()
        .for_each(|reason| metrics.skipped(reason));
    for credential in [Credential::Access, Credential::Id, Credential::None] {
        Lookup::ALL
            .into_iter()
            .for_each(|outcome| metrics.token_lookup(credential, outcome));
        Fetch::ALL
            .into_iter()
            .for_each(|outcome| metrics.token_fetched(credential, outcome, 100 * MS));
        metrics.set_token_expiry(credential, Some(UNIX_EPOCH + 1_500 * MS));
    }
    Connect::ALL
        .into_iter()
        .for_each(|outcome| metrics.connected(outcome));
    metrics.auth_rejected(StatusCode::FORBIDDEN);
    metrics
}

#[test]
fn the_exposition_is_valid_before_and_after_everything_was_counted() {
    Exposition::parse(&Metrics::new().render());
    let families: HashSet<String> = Exposition::parse(&busy().render())
        .families
        .into_keys()
        .collect();
    for family in [
        "process_start_time_seconds",
        "sidentity_build_info",
        "sidentity_connections",
        "sidentity_proxy_errors_total",
        "sidentity_request_duration_seconds",
        "sidentity_requests_in_flight",
        "sidentity_requests_total",
        "sidentity_skipped_total",
        "sidentity_token_expiry_timestamp_seconds",
        "sidentity_token_fetch_duration_seconds",
        "sidentity_token_fetches_total",
        "sidentity_token_lookups_total",
        "sidentity_upstream_auth_rejected_total",
        "sidentity_upstream_connections",
        "sidentity_upstream_connects_total",
    ] {
        assert!(families.contains(family), "{family} in {families:?}");
    }
}

#[test]
fn requests_are_counted_under_their_exact_status() {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    for code in [100, 200, 200, 308, 418, 599] {
        listener.request_finished(Credential::Id, status(code), MS);
    }
    for code in [status(600), Code::OTHER, Code::CANCELLED] {
        listener.request_finished(Credential::Access, code, MS);
    }
    listener.request_finished(Credential::Deny, status(403), MS);
    listener.request_finished(Credential::None, status(403), MS);
    let line = |credential, code, count| {
        format!(
            "sidentity_requests_total{{code=\"{code}\",credential=\"{credential}\",listener=\"proxy\"}} {count}"
        )
    };
    let mut lines = series(&metrics, "sidentity_requests_total");
    lines.sort();
    assert_eq!(
        lines,
        [
            line("id", "100", 1),
            line("id", "200", 2),
            line("id", "308", 1),
            line("none", "403", 2),
            line("id", "418", 1),
            line("id", "599", 1),
            line("access", "cancelled", 1),
            line("access", "other", 2),
        ]
    );
}

#[test]
fn every_status_has_a_counter_of_its_own() {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    for code in 100..1_000 {
        listener.request_finished(Credential::Id, status(code), MS);
    }
    let lines = series(&metrics, "sidentity_requests_total");
    assert_eq!(lines.len(), 501);
    let (others, exact): (Vec<_>, Vec<_>) = lines
        .iter()
        .partition(|line| line.contains("code=\"other\""));
    assert!(others[0].ends_with(" 400"));
    assert!(exact.iter().all(|line| line.ends_with(" 1")));
}

#[test]
fn an_idle_listener_adds_two_lines() {
    let metrics = Metrics::new();
    let before = metrics.render().lines().count();
    let _listeners: Vec<_> = (0..50).map(|n| metrics.listener(&n.to_string())).collect();
    let comments = 4;
    assert_eq!(metrics.render().lines().count(), before + comments + 2 * 50);
}

#[test]
fn listeners_over_the_limit_share_a_label() {
    let metrics = Metrics::new();
    for n in 0..2 * MAX_LISTENERS {
        let _open = metrics.listener(&n.to_string());
    }
    let first = metrics.listener("0");
    let _open = [
        first.connection_opened(),
        metrics.listener("new").connection_opened(),
        metrics.listener("newer").connection_opened(),
    ];
    let lines = series(&metrics, "sidentity_connections");
    assert_eq!(lines.len(), MAX_LISTENERS + 1);
    assert!(lines.contains(&"sidentity_connections{listener=\"0\"} 1".to_owned()));
    assert!(lines.contains(&"sidentity_connections{listener=\"other\"} 2".to_owned()));
}

#[test]
fn a_rebound_listener_continues_its_counts() {
    let metrics = Metrics::new();
    for _ in 0..2 {
        metrics
            .listener("proxy")
            .request_finished(Credential::Id, status(200), MS);
    }
    let lines = series(&metrics, "sidentity_requests_total");
    assert!(lines[0].ends_with(" 2"), "{lines:?}");
}

#[test]
fn a_gauge_falls_when_its_guard_is_dropped() {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    let (request, connection) = (listener.request_started(), listener.connection_opened());
    let upstream = metrics.upstream_connection();
    let gauges = |value| {
        vec![
            format!("sidentity_requests_in_flight{{listener=\"proxy\"}} {value}"),
            format!("sidentity_connections{{listener=\"proxy\"}} {value}"),
            format!("sidentity_upstream_connections {value}"),
        ]
    };
    let read = || {
        let mut lines = series(&metrics, "sidentity_requests_in_flight");
        lines.extend(series(&metrics, "sidentity_connections"));
        lines.extend(series(&metrics, "sidentity_upstream_connections"));
        lines
    };
    assert_eq!(read(), gauges(1));
    drop((request, connection, upstream));
    assert_eq!(read(), gauges(0));
}

#[test]
fn errors_with_the_same_word_share_a_counter() {
    let metrics = Metrics::new();
    let words: HashSet<_> = ErrorKind::ALL
        .map(|kind| kind.row().proxy_status)
        .into_iter()
        .collect();
    assert_eq!(
        series(&metrics, "sidentity_proxy_errors_total").len(),
        words.len()
    );
    metrics.proxy_error(ErrorKind::Internal);
    metrics.proxy_error(ErrorKind::TokenRefused);
    metrics.proxy_error(ErrorKind::TokenUnavailable);
    let lines = series(&metrics, "sidentity_proxy_errors_total");
    let line = "sidentity_proxy_errors_total{error=\"proxy_internal_error\"} 3";
    assert!(lines.contains(&line.to_owned()), "{lines:?}");
}

#[test]
fn every_error_kind_has_a_counter() {
    for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
    for (index, reason) in SkipReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}

#[test]
fn token_metrics_exist_from_the_start() {
    let metrics = Metrics::new();
    assert_eq!(series(&metrics, "sidentity_token_lookups_total").len(), 8);
    assert_eq!(series(&metrics, "sidentity_token_fetches_total").len(), 6);
    metrics.token_lookup(Credential::Id, Lookup::Stale);
    metrics.token_lookup(Credential::None, Lookup::Stale);
    metrics.token_fetched_from(
        SourceKind::Sts,
        Credential::Access,
        Fetch::Unchanged,
        30 * MS,
    );
    metrics.set_token_expiry(
        Credential::Access,
        Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
    );
    metrics.auth_rejected(StatusCode::UNAUTHORIZED);
    metrics.auth_rejected(StatusCode::OK);
    let text = metrics.render();
    for line in [
        "sidentity_token_lookups_total{credential=\"id\",outcome=\"stale\"} 1",
        "sidentity_token_fetches_total{credential=\"access\",outcome=\"unchanged\",source=\"sts\"} 1",
        "sidentity_token_fetch_duration_seconds_bucket{credential=\"access\",le=\"0.025\"} 0",
        "sidentity_token_fetch_duration_seconds_bucket{credential=\"access\",le=\"0.05\"} 1",
        "sidentity_token_expiry_timestamp_seconds{credential=\"access\"} 1700000000",
        "sidentity_token_expiry_timestamp_seconds{credential=\"id\"} 0",
        "sidentity_upstream_auth_rejected_total{code=\"401\"} 1",
        "sidentity_upstream_auth_rejected_total{code=\"403\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn duration_buckets_separate_loopback_from_a_stalled_upstream() {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    for took in [
        Duration::from_micros(80),
        MS,
        Duration::from_secs(45),
        Duration::from_secs(90),
    ] {
        listener.request_finished(Credential::None, status(200), took);
    }
    let family = "sidentity_request_duration_seconds_bucket";
    let buckets: Vec<_> = series(&metrics, family)
        .iter()
        .map(|line| {
            let (_, rest) = line.split_once("le=\"").unwrap();
            rest.replace("\"}", "")
        })
        .collect();
    for bucket in ["0.0001 1", "0.0005 1", "0.001 2", "30 2", "60 3", "+Inf 4"] {
        assert!(
            buckets.contains(&bucket.to_owned()),
            "{bucket} in {buckets:?}"
        );
    }
}
