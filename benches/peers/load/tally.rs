//! Counts responses and latencies.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Counts while it is enabled.
#[derive(Default)]
pub(super) struct Tally {
    since: Cell<Option<Instant>>,
    paused: Cell<bool>,
    requests: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    error: RefCell<Option<String>>,
    latencies: RefCell<Vec<u32>>,
}

/// The results.
pub(super) struct Counted {
    requests: u64,
    bytes: u64,
    errors: u64,
    error: Option<String>,
    seconds: f64,
    /// Latencies in nanoseconds, in ascending order.
    latencies: Vec<u32>,
}

impl Tally {
    pub(super) fn begin(&self) {
        self.latencies.borrow_mut().reserve(1 << 20);
        self.since.set(Some(Instant::now()));
    }

    pub(super) fn end(&self) -> Counted {
        let since = self.since.take();
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        Counted {
            requests: self.requests.get(),
            bytes: self.bytes.get(),
            errors: self.errors.get(),
            error: self.error.take(),
            seconds: since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            latencies,
        }
    }

    /// Stops further calls.
    pub(super) fn pause(&self) {
        self.paused.set(true);
    }

    /// Waits while the load is paused.
    pub(super) async fn go_on(&self) {
        if self.paused.get() {
            std::future::pending().await
        }
    }

    pub(super) fn answered(&self, status: u16, bytes: u64, took: Duration) {
        if status != 200 {
            return self.failed(&format!("status {status}"));
        }
        if self.since.get().is_some() {
            self.requests.set(self.requests.get() + 1);
            self.bytes.set(self.bytes.get() + bytes);
            let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            self.latencies.borrow_mut().push(nanos);
        }
    }

    /// Counts an error at any time, because a load with errors is not a valid measurement.
    pub(super) fn failed(&self, error: &str) {
        self.errors.set(self.errors.get() + 1);
        self.error
            .borrow_mut()
            .get_or_insert_with(|| error.to_owned());
    }
}

impl Counted {
    pub(super) fn json(&self, cpu: f64) -> Value {
        json!({
            "requests": self.requests,
            "bytes": self.bytes,
            "errors": self.errors,
            "error": self.error,
            "seconds": self.seconds,
            "cpu": cpu,
            "p50": self.percentile(50),
            "p99": self.percentile(99),
        })
    }

    /// Returns a percentile in microseconds.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let index = self.latencies.len() * percent / 100;
        self.latencies
            .get(index)
            .map(|nanos| f64::from(*nanos) / 1000.0)
    }
}
