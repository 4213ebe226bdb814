//! The metric families. Every label value comes from a closed set, so a hostile peer cannot grow them; every handle is
//! resolved once and indexed by an enum, so that counting costs one atomic add.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::ErrorKind;
use crate::policy::{Credential, SkipReason};

/// The media type of [`Metrics::render`].
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds; from a hit on loopback to a stalled upstream.
const BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// Credentials that label a request or a token: `access`, `id`, `none`.
const CREDENTIALS: [Credential; 3] = [Credential::Access, Credential::Id, Credential::None];

/// All metrics of the process; clone the `Arc` around it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    proxy_errors: [IntCounter; ErrorKind::ALL.len()],
    skipped: [IntCounter; SkipReason::ALL.len()],
    lookups: [[IntCounter; Lookup::ALL.len()]; 2],
    fetches: [[IntCounter; Fetch::ALL.len()]; 2],
    fetch_durations: [Histogram; 2],
    expiries: [Gauge; 2],
    connects: [IntCounter; Connect::ALL.len()],
    upstream_connections: IntGauge,
    auth_rejected: [IntCounter; 2],
}

/// The handles of one listener, resolved when it is bound.
#[derive(Debug)]
pub struct ListenerMetrics {
    requests: [[IntCounter; Code::ALL.len()]; CREDENTIALS.len()],
    durations: [Histogram; CREDENTIALS.len()],
    in_flight: IntGauge,
    connections: IntGauge,
}

/// Counts one in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Gauged(IntGauge);

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The label's value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// How a token was come by: `sidentity_token_lookups_total{outcome}`.
    Lookup {
        /// Fresh, from the slot.
        Hit = "hit",
        /// From the slot, while a refresh starts behind it.
        Stale = "stale",
        /// The request waited for a fetch.
        Wait = "wait",
        /// There was none.
        Error = "error",
    }
}

labels! {
    /// What the metadata server gave: `sidentity_token_fetches_total{outcome}`.
    Fetch {
        /// A new token.
        Ok = "ok",
        /// The same token again.
        Unchanged = "unchanged",
        /// No usable token.
        Error = "error",
    }
}

labels! {
    /// How dialling an upstream ended: `sidentity_upstream_connects_total{outcome}`.
    Connect {
        /// A connection.
        Ok = "ok",
        /// Name resolution failed or timed out.
        Dns = "dns",
        /// Nobody listens.
        Refused = "refused",
        /// Not in time.
        Timeout = "timeout",
        /// The TLS or HTTP/2 handshake failed.
        Tls = "tls",
        /// Anything else.
        Error = "error",
    }
}

labels! {
    /// The answer to a request: `sidentity_requests_total{code}`. Statuses beyond those that are worth telling apart
    /// are counted by their class.
    Code {
        /// Switched protocols.
        C101 = "101",
        /// Other informational.
        C1xx = "1xx",
        /// OK.
        C200 = "200",
        /// Created.
        C201 = "201",
        /// No content.
        C204 = "204",
        /// Partial content.
        C206 = "206",
        /// Other success.
        C2xx = "2xx",
        /// Found elsewhere.
        C302 = "302",
        /// Not modified.
        C304 = "304",
        /// Resume incomplete, of Google's upload protocol.
        C308 = "308",
        /// Other redirection.
        C3xx = "3xx",
        /// Bad request.
        C400 = "400",
        /// No valid identity.
        C401 = "401",
        /// Not allowed.
        C403 = "403",
        /// Not found.
        C404 = "404",
        /// Proxy credentials wanted.
        C407 = "407",
        /// Conflict.
        C409 = "409",
        /// Precondition failed.
        C412 = "412",
        /// Misdirected.
        C421 = "421",
        /// Too many requests.
        C429 = "429",
        /// Other fault of the caller.
        C4xx = "4xx",
        /// Internal error.
        C500 = "500",
        /// Bad gateway.
        C502 = "502",
        /// Unavailable.
        C503 = "503",
        /// Gateway time-out.
        C504 = "504",
        /// Loop detected.
        C508 = "508",
        /// Other fault of the upstream.
        C5xx = "5xx",
        /// A status that is none.
        Other = "other",
        /// The caller went away before the answer's end.
        Cancelled = "cancelled",
    }
}

// === impl Metrics ===

impl Metrics {
    /// All families, each counter at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let requests = counters(
            &registry,
            "sidentity_requests_total",
            "Requests, by the answer's status.",
            &["listener", "credential", "code"],
        );
        let durations = histograms(
            &registry,
            "sidentity_request_duration_seconds",
            "From the request's head to the end of the answer.",
            &["listener", "credential"],
        );
        let in_flight = gauges(
            &registry,
            "sidentity_requests_in_flight",
            "Requests begun and not ended.",
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
            "Requests that the sidecar answered itself, by the error of Proxy-Status.",
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
            "How requests came by their token.",
            &["credential", "outcome"],
        );
        let fetches = counters(
            &registry,
            "sidentity_token_fetches_total",
            "Tokens asked of the metadata server.",
            &["credential", "outcome"],
        );
        let fetch_durations = histograms(
            &registry,
            "sidentity_token_fetch_duration_seconds",
            "How long a fetch took, retries included.",
            &["credential"],
        );
        let expiries = registered(
            &registry,
            GaugeVec::new(
                Opts::new(
                    "sidentity_token_expiry_timestamp_seconds",
                    "When the first of the cached tokens expires; 0 where there is none.",
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
            "Answers 401 and 403 to requests that carried a token of ours.",
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
        let tokens = [Credential::Access, Credential::Id].map(Credential::as_str);
        Self {
            proxy_errors: ErrorKind::ALL
                .map(|kind| proxy_errors.with_label_values(&[kind.row().proxy_status])),
            skipped: SkipReason::ALL.map(|reason| skipped.with_label_values(&[reason.as_str()])),
            lookups: tokens.map(|token| {
                Lookup::ALL.map(|outcome| lookups.with_label_values(&[token, outcome.as_str()]))
            }),
            fetches: tokens.map(|token| {
                Fetch::ALL.map(|outcome| fetches.with_label_values(&[token, outcome.as_str()]))
            }),
            fetch_durations: tokens.map(|token| fetch_durations.with_label_values(&[token])),
            expiries: tokens.map(|token| expiries.with_label_values(&[token])),
            connects: Connect::ALL.map(|outcome| connects.with_label_values(&[outcome.as_str()])),
            auth_rejected: ["401", "403"].map(|code| auth_rejected.with_label_values(&[code])),
            registry,
            requests,
            durations,
            in_flight,
            connections,
            upstream_connections,
        }
    }

    /// The handles of a listener: `proxy`, or the route's name from the configuration.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            requests: CREDENTIALS.map(|credential| {
                Code::ALL.map(|code| {
                    self.requests
                        .with_label_values(&[name, credential.as_str(), code.as_str()])
                })
            }),
            durations: CREDENTIALS.map(|credential| {
                self.durations
                    .with_label_values(&[name, credential.as_str()])
            }),
            in_flight: self.in_flight.with_label_values(&[name]),
            connections: self.connections.with_label_values(&[name]),
        }
    }

    /// Counts a request that the sidecar answered itself.
    pub fn proxy_error(&self, kind: ErrorKind) {
        bump(&self.proxy_errors, kind as usize);
    }

    /// Counts a request that went without the token its destination is due.
    pub fn skipped(&self, reason: SkipReason) {
        bump(&self.skipped, reason as usize);
    }

    /// Counts how a request came by its token.
    pub fn token_lookup(&self, credential: Credential, outcome: Lookup) {
        if let Some(counters) = token_index(credential).and_then(|i| self.lookups.get(i)) {
            bump(counters, outcome as usize);
        }
    }

    /// Counts and times a fetch.
    pub fn token_fetched(&self, credential: Credential, outcome: Fetch, took: Duration) {
        let Some(index) = token_index(credential) else {
            return;
        };
        if let Some(counters) = self.fetches.get(index) {
            bump(counters, outcome as usize);
        }
        if let Some(durations) = self.fetch_durations.get(index) {
            durations.observe(took.as_secs_f64());
        }
    }

    /// Sets when the first cached token of this kind expires.
    pub fn set_token_expiry(&self, credential: Credential, earliest: Option<SystemTime>) {
        if let Some(gauge) = token_index(credential).and_then(|i| self.expiries.get(i)) {
            let since_epoch = earliest.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            gauge.set(since_epoch.map_or(0.0, |at| at.as_secs_f64()));
        }
    }

    /// Counts a dialled connection.
    pub fn connected(&self, outcome: Connect) {
        bump(&self.connects, outcome as usize);
    }

    /// Counts an open upstream connection while the guard lives.
    pub fn upstream_connection(&self) -> Gauged {
        Gauged::new(&self.upstream_connections)
    }

    /// Counts an upstream's 401 or 403 to a token of ours.
    pub fn auth_rejected(&self, status: StatusCode) {
        match status {
            StatusCode::UNAUTHORIZED => bump(&self.auth_rejected, 0),
            StatusCode::FORBIDDEN => bump(&self.auth_rejected, 1),
            _ => {}
        }
    }

    /// All metrics in the Prometheus text format, [`TEXT_FORMAT`].
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail, and a name or label that could not be encoded was refused at start.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// Counts a request in flight while the guard lives.
    pub fn request_started(&self) -> Gauged {
        Gauged::new(&self.in_flight)
    }

    /// Counts an open connection while the guard lives.
    pub fn connection_opened(&self) -> Gauged {
        Gauged::new(&self.connections)
    }

    /// Counts and times a request that ended; a refused one counts as `none`.
    pub fn request_finished(&self, credential: Credential, code: Code, took: Duration) {
        let index = match credential {
            Credential::Access => 0,
            Credential::Id => 1,
            Credential::None | Credential::Deny => 2,
        };
        if let Some(counters) = self.requests.get(index) {
            bump(counters, code as usize);
        }
        if let Some(durations) = self.durations.get(index) {
            durations.observe(took.as_secs_f64());
        }
    }
}

// === impl Gauged ===

impl Gauged {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Code ===

impl From<StatusCode> for Code {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            101 => Self::C101,
            100..=199 => Self::C1xx,
            200 => Self::C200,
            201 => Self::C201,
            204 => Self::C204,
            206 => Self::C206,
            200..=299 => Self::C2xx,
            302 => Self::C302,
            304 => Self::C304,
            308 => Self::C308,
            300..=399 => Self::C3xx,
            400 => Self::C400,
            401 => Self::C401,
            403 => Self::C403,
            404 => Self::C404,
            407 => Self::C407,
            409 => Self::C409,
            412 => Self::C412,
            421 => Self::C421,
            429 => Self::C429,
            400..=499 => Self::C4xx,
            500 => Self::C500,
            502 => Self::C502,
            503 => Self::C503,
            504 => Self::C504,
            508 => Self::C508,
            500..=599 => Self::C5xx,
            _ => Self::Other,
        }
    }
}

fn token_index(credential: Credential) -> Option<usize> {
    match credential {
        Credential::Access => Some(0),
        Credential::Id => Some(1),
        Credential::None | Credential::Deny => None,
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

/// Names and labels are constants of this file: that they are valid and unique is what `cargo test` sees.
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
