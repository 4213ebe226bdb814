//! The metrics of one listener.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::code::Code;
use super::counts::Counts;
use super::metrics::ErrorCounters;
use super::rate_limit::LogThrottle;
use crate::diagnostics::{History, Latencies, RecentErrors, RequestOutcome};
use crate::error::ErrorKind;
use crate::policy::Credential;

/// The credentials that label a request. A denied request counts as `none`.
const CREDENTIALS: [Credential; 3] = [Credential::Access, Credential::Id, Credential::None];

/// The metrics of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: Arc<str>,
    counters: Arc<ListenerCounters>,
    errors: Arc<ErrorCounters>,
    recent: Arc<RecentErrors>,
    rejections: LogThrottle,
}

/// The counters of a listener's name. They are kept over reloads. Metrics and status page read them.
///
/// A series exists from its first use. Otherwise fifty routes would print thousands of zeros at every scrape.
#[derive(Debug)]
pub(super) struct ListenerCounters {
    requests: IntCounterVec,
    durations: HistogramVec,
    finished: [Finished; CREDENTIALS.len()],
    in_flight: IntGauge,
    connections: IntGauge,
    history: Arc<History>,
    errors: AtomicU64,
    latencies: Latencies,
}

/// Increments a gauge, and decrements it on drop.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

/// The requests of one credential.
#[derive(Debug, Default)]
struct Finished {
    duration: OnceLock<Histogram>,
    cancelled: OnceLock<IntCounter>,
    other: OnceLock<IntCounter>,
    /// Indexed by the first digit of the status. Most listeners see two or three classes, and a class takes 1.6 KB.
    classes: [OnceLock<StatusClass>; 5],
}

/// Indexed by the last two digits of the status.
type StatusClass = Box<[OnceLock<IntCounter>; 100]>;

// === impl ListenerMetrics ===

impl ListenerMetrics {
    pub(super) fn new(
        name: &str,
        counters: Arc<ListenerCounters>,
        errors: Arc<ErrorCounters>,
        recent: Arc<RecentErrors>,
    ) -> Self {
        Self {
            name: name.into(),
            counters,
            errors,
            recent,
            rejections: LogThrottle::default(),
        }
    }

    /// Counts a request in flight while the guard lives.
    pub fn request_started(&self) -> GaugeGuard {
        GaugeGuard::new(&self.counters.in_flight)
    }

    /// Counts an open connection while the guard lives.
    pub(crate) fn connection_opened(&self) -> GaugeGuard {
        GaugeGuard::new(&self.counters.connections)
    }

    /// Counts a request that ended at this time. `took` is its duration, `None` for a tunnel.
    pub(crate) fn record_history(
        &self,
        at: Instant,
        outcome: RequestOutcome,
        took: Option<Duration>,
    ) {
        self.counters.history.ended(at, outcome, took);
        if outcome.is_error() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(took) = took {
            self.counters.latencies.count(took);
        }
    }

    /// Counts an error after the head of a response. Errors that became a response are counted where that is made.
    pub(crate) fn interrupted(&self, kind: ErrorKind) {
        self.errors.count(kind);
    }

    /// Returns the last errors.
    pub(crate) fn recent(&self) -> &RecentErrors {
        &self.recent
    }

    /// Returns the limit for log lines about rejected callers.
    pub(crate) fn rejections(&self) -> &LogThrottle {
        &self.rejections
    }

    /// Counts and times a request that ended. A denied request counts as `none`.
    pub fn request_finished(&self, credential: Credential, code: Code, took: Duration) {
        let counters = &*self.counters;
        let [access, id, none] = &counters.finished;
        let (finished, label) = match credential {
            Credential::Access => (access, credential),
            Credential::Id => (id, credential),
            Credential::None | Credential::Deny => (none, Credential::None),
        };
        let label = label.as_str();
        if let Some(slot) = finished.slot(code) {
            slot.get_or_init(|| {
                counters
                    .requests
                    .with_label_values(&[&*self.name, label, &code.to_string()])
            })
            .inc();
        }
        finished
            .duration
            .get_or_init(|| counters.durations.with_label_values(&[&*self.name, label]))
            .observe(took.as_secs_f64());
    }
}

// === impl ListenerCounters ===

impl ListenerCounters {
    pub(super) fn new(
        requests: &IntCounterVec,
        durations: &HistogramVec,
        in_flight: IntGauge,
        connections: IntGauge,
        history: Arc<History>,
    ) -> Self {
        Self {
            requests: requests.clone(),
            durations: durations.clone(),
            finished: Default::default(),
            in_flight,
            connections,
            history,
            errors: AtomicU64::new(0),
            latencies: Latencies::default(),
        }
    }

    /// Returns the current counts.
    pub(super) fn read(&self) -> Counts {
        let durations = self.finished.iter().filter_map(|f| f.duration.get());
        // These gauges count objects, so they are never negative.
        let gauge = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        Counts {
            requests: durations.map(Histogram::get_sample_count).sum(),
            in_flight: gauge(&self.in_flight),
            connections: gauge(&self.connections),
            errors: self.errors.load(Ordering::Relaxed),
            latencies: self.latencies.read(),
        }
    }
}

// === impl Finished ===

impl Finished {
    /// Returns the slot of a code, or `None` for a status outside 100-599.
    fn slot(&self, code: Code) -> Option<&OnceLock<IntCounter>> {
        let Some(status) = code.status().map(usize::from) else {
            return Some(if code == Code::CANCELLED {
                &self.cancelled
            } else {
                &self.other
            });
        };
        let class = self.classes.get((status / 100).checked_sub(1)?)?;
        class
            .get_or_init(|| Box::new([const { OnceLock::new() }; 100]))
            .get(status % 100)
    }
}

// === impl GaugeGuard ===

impl GaugeGuard {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
