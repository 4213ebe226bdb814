//! The metric families. Every label value comes from a closed set or the configuration, so a hostile peer cannot add
//! time series. Every handle is resolved once and indexed by an enum: counting costs one atomic add.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::counts::Counts;
use super::labels::{Connect, Fetch, Lookup};
use super::listener::{GaugeGuard, ListenerCounters, ListenerMetrics};
use super::process::ProcessCollector;
use super::rate_limit::LineLimit;
use crate::diagnostics::{History, LogEntry, RecentErrors};
use crate::error::{ErrorKind, SourceKind};
use crate::lock::lock;
use crate::policy::{Credential, SkipReason};

/// The media type of [`Metrics::render`].
pub(crate) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds; from a hit on loopback to a stalled upstream.
const BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// The number of listeners with a label of their own; further ones share [`REST`].
const MAX_LISTENERS: usize = 256;

const REST: &str = "other";

/// The credentials that are tokens.
const TOKENS: [Credential; 2] = [Credential::Access, Credential::Id];

/// All metrics of the process, shared in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    malformed: LineLimit,
    listeners: Mutex<BTreeMap<Box<str>, Arc<ListenerCounters>>>,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    proxy_errors: Arc<ErrorCounters>,
    skipped: [IntCounter; SkipReason::ALL.len()],
    lookups: [[IntCounter; Lookup::ALL.len()]; 2],
    fetches: IntCounterVec,
    fetch_durations: [Histogram; 2],
    expiries: [Gauge; 2],
    connects: [IntCounter; Connect::ALL.len()],
    upstream_connections: IntGauge,
    auth_rejected: [IntCounter; 2],
    history: Arc<History>,
    recent: Arc<RecentErrors>,
}

/// The errors of the sidecar, one counter for each kind.
#[derive(Debug)]
pub(super) struct ErrorCounters([IntCounter; ErrorKind::ALL.len()]);

// === impl ErrorCounters ===

impl ErrorCounters {
    pub(super) fn count(&self, kind: ErrorKind) {
        bump(&self.0, kind as usize);
    }
}

// === impl Metrics ===

impl Metrics {
    /// Creates all families. Series without a `listener` label exist from the start, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let requests = counters(
            &registry,
            "sidentity_requests_total",
            "Requests, by the status of the response.",
            &["listener", "credential", "code"],
        );
        let durations = histograms(
            &registry,
            "sidentity_request_duration_seconds",
            "Duration of a request, from its head to the end of the response.",
            &["listener", "credential"],
        );
        let in_flight = gauges(
            &registry,
            "sidentity_requests_in_flight",
            "Requests in flight.",
            &["listener"],
        );
        let connections = gauges(
            &registry,
            "sidentity_connections",
            "Open connections of apps.",
            &["listener"],
        );
        let proxy_errors = counters(
            &registry,
            "sidentity_proxy_errors_total",
            "Requests that the sidecar answered itself, and responses that broke off, by the error of Proxy-Status.",
            &["error"],
        );
        let skipped = counters(
            &registry,
            "sidentity_skipped_total",
            "Requests to a destination that gets a token, sent without one.",
            &["reason"],
        );
        let lookups = counters(
            &registry,
            "sidentity_token_lookups_total",
            "Token lookups, by outcome.",
            &["credential", "outcome"],
        );
        let fetches = counters(
            &registry,
            "sidentity_token_fetches_total",
            "Fetches of tokens from their sources.",
            &["credential", "source", "outcome"],
        );
        let fetch_durations = histograms(
            &registry,
            "sidentity_token_fetch_duration_seconds",
            "Duration of a fetch, retries included.",
            &["credential"],
        );
        let expiries = registered(
            &registry,
            GaugeVec::new(
                Opts::new(
                    "sidentity_token_expiry_timestamp_seconds",
                    "Expiry of the cached token that expires first; 0 if there is none.",
                ),
                &["credential"],
            ),
        );
        let connects = counters(
            &registry,
            "sidentity_upstream_connects_total",
            "Connections dialled to upstreams.",
            &["outcome"],
        );
        let upstream_connections = registered(
            &registry,
            IntGauge::new(
                "sidentity_upstream_connections",
                "Open connections to upstreams.",
            ),
        );
        let auth_rejected = counters(
            &registry,
            "sidentity_upstream_auth_rejected_total",
            "Responses 401 and 403 to requests that carried an injected token.",
            &["code"],
        );
        let build_info = gauges(
            &registry,
            "sidentity_build_info",
            "Always 1.",
            &["version", "revision"],
        );
        build_info
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                option_env!("SIDENTITY_REVISION").unwrap_or("unknown"),
            ])
            .set(1);
        registered(&registry, ProcessCollector::this());
        let tokens = TOKENS.map(Credential::as_str);
        init_fetches(&fetches, SourceKind::Metadata);
        Self {
            malformed: LineLimit::default(),
            proxy_errors: Arc::new(ErrorCounters(
                ErrorKind::ALL
                    .map(|kind| proxy_errors.with_label_values(&[kind.row().proxy_status])),
            )),
            skipped: SkipReason::ALL.map(|reason| skipped.with_label_values(&[reason.as_str()])),
            lookups: tokens.map(|token| {
                Lookup::ALL.map(|outcome| lookups.with_label_values(&[token, outcome.as_str()]))
            }),
            fetches,
            fetch_durations: tokens.map(|token| fetch_durations.with_label_values(&[token])),
            expiries: tokens.map(|token| expiries.with_label_values(&[token])),
            connects: Connect::ALL.map(|outcome| connects.with_label_values(&[outcome.as_str()])),
            auth_rejected: ["401", "403"].map(|code| auth_rejected.with_label_values(&[code])),
            registry,
            listeners: Mutex::default(),
            requests,
            durations,
            in_flight,
            connections,
            upstream_connections,
            history: Arc::default(),
            recent: Arc::default(),
        }
    }

    /// Returns the metrics of a listener: `proxy`, or the route's name from the configuration.
    ///
    /// Series live as long as the process, and reloads bring new names: after the 256th, listeners share a label.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        let mut listeners = lock(&self.listeners);
        let named = listeners.contains_key(name) || listeners.len() < MAX_LISTENERS;
        let name = if named { name } else { REST };
        let counters = listeners.entry(name.into()).or_insert_with(|| {
            Arc::new(ListenerCounters::new(
                &self.requests,
                &self.durations,
                self.in_flight.with_label_values(&[name]),
                self.connections.with_label_values(&[name]),
                self.history.clone(),
            ))
        });
        ListenerMetrics::new(
            name,
            counters.clone(),
            self.proxy_errors.clone(),
            self.recent.clone(),
        )
    }

    /// Counts an error of the sidecar.
    pub(crate) fn proxy_error(&self, kind: ErrorKind) {
        self.proxy_errors.count(kind);
    }

    /// Returns whether to log a request that could not be parsed: at most ten a second. Logs the number of suppressed
    /// ones.
    pub(crate) fn logs_malformed(&self) -> bool {
        let due = self.malformed.due();
        if let Some(suppressed @ 1..) = due {
            tracing::warn!(
                suppressed,
                help = LogEntry::MalformedNotLogged.page(),
                "requests that could not be parsed were not logged"
            );
        }
        due.is_some()
    }

    /// Counts a request that was sent without the token of its destination.
    pub(crate) fn skipped(&self, reason: SkipReason) {
        bump(&self.skipped, reason as usize);
    }

    /// Counts the lookup of a token.
    pub fn token_lookup(&self, credential: Credential, outcome: Lookup) {
        if let Some(counters) = token_index(credential).and_then(|i| self.lookups.get(i)) {
            bump(counters, outcome as usize);
        }
    }

    /// Creates the counters of fetches from a source, so that an alert sees the first failure as an increase.
    pub(crate) fn expect_fetches(&self, source: SourceKind) {
        init_fetches(&self.fetches, source);
    }

    /// Counts and times a fetch from the metadata server.
    pub fn token_fetched(&self, credential: Credential, outcome: Fetch, took: Duration) {
        self.token_fetched_from(SourceKind::Metadata, credential, outcome, took);
    }

    /// Counts and times a fetch from a source.
    pub(crate) fn token_fetched_from(
        &self,
        source: SourceKind,
        credential: Credential,
        outcome: Fetch,
        took: Duration,
    ) {
        let Some(index) = token_index(credential) else {
            return;
        };
        let labels = [credential.as_str(), source.as_str(), outcome.as_str()];
        self.fetches.with_label_values(&labels).inc();
        if let Some(durations) = self.fetch_durations.get(index) {
            durations.observe(took.as_secs_f64());
        }
    }

    /// Sets the expiry of the cached token of this kind that expires first.
    pub fn set_token_expiry(&self, credential: Credential, earliest: Option<SystemTime>) {
        if let Some(gauge) = token_index(credential).and_then(|i| self.expiries.get(i)) {
            let since_epoch = earliest.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            gauge.set(since_epoch.map_or(0.0, |at| at.as_secs_f64()));
        }
    }

    /// Counts a dialled connection.
    pub(crate) fn connected(&self, outcome: Connect) {
        bump(&self.connects, outcome as usize);
    }

    /// Counts an open upstream connection while the guard lives.
    pub(crate) fn upstream_connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.upstream_connections)
    }

    /// Counts an upstream's 401 or 403 to a token of ours.
    pub fn auth_rejected(&self, status: StatusCode) {
        match status {
            StatusCode::UNAUTHORIZED => bump(&self.auth_rejected, 0),
            StatusCode::FORBIDDEN => bump(&self.auth_rejected, 1),
            _ => {}
        }
    }

    /// Returns the counts of each listener, by its name.
    pub(crate) fn counts(&self) -> BTreeMap<String, Counts> {
        let listeners = lock(&self.listeners);
        let counts = listeners.iter();
        counts
            .map(|(name, counters)| (name.to_string(), counters.read()))
            .collect()
    }

    /// Returns the history of the last 15 minutes.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Returns the last errors.
    pub(crate) fn recent(&self) -> &RecentErrors {
        &self.recent
    }

    /// Returns all metrics in the Prometheus text format, [`TEXT_FORMAT`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to memory cannot fail. A name or label that cannot be encoded would have been refused at start.
        let _ = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn token_index(credential: Credential) -> Option<usize> {
    match credential {
        Credential::Access => Some(0),
        Credential::Id => Some(1),
        Credential::None | Credential::Deny => None,
    }
}

fn init_fetches(fetches: &IntCounterVec, source: SourceKind) {
    for credential in TOKENS {
        for outcome in Fetch::ALL {
            let labels = [credential.as_str(), source.as_str(), outcome.as_str()];
            fetches.with_label_values(&labels);
        }
    }
}

fn bump(counters: &[IntCounter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    registered(registry, HistogramVec::new(opts, labels))
}

/// Registers a metric. Names and labels are constants of this file; `cargo test` checks that they are valid and unique.
#[allow(clippy::expect_used)]
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> C {
    let family = family.expect("a valid family");
    registry
        .register(Box::new(family.clone()))
        .expect("a new family");
    family
}

#[cfg(test)]
mod tests;
