//! The requests of the last 15 minutes, for the charts of the status page: their number, outcomes and durations.
//!
//! A request costs one or two atomic adds when it ends. No timer runs: the first request of a period closes the period
//! before. Without requests there is no history and no cost.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

pub(super) mod latency;

use latency::{BUCKETS, bucket, quantile};

use crate::lock::lock;

/// The length of a period, one bar of the chart.
const PERIOD: Duration = Duration::from_secs(10);

/// The number of periods: 15 minutes.
const PERIODS: usize = 90;

/// How a request ended, for the chart of the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    /// The upstream's response was passed on.
    Answered,
    /// The caller cancelled the request.
    Cancelled,
    /// The sidecar answered with its own error.
    Failed,
    /// The upstream rejected the token: 401 or 403.
    Rejected,
    /// The upstream answered 5xx.
    UpstreamError,
}

/// The requests that ended in the last 15 minutes. Takes up to 40 KiB, and nothing before the first request.
#[derive(Debug)]
pub(crate) struct History {
    start: Instant,
    /// The current period, counted from the start.
    current: AtomicU64,
    totals: RunningTotals,
    past: Mutex<Past>,
}

/// Counts since the start, modulo 2^32. A period is the difference of two of these.
#[derive(Debug)]
struct RunningTotals {
    endings: [AtomicU32; RequestOutcome::ALL.len()],
    latencies: [AtomicU32; BUCKETS],
}

/// [`RunningTotals`] at one time, or the difference between two times.
#[derive(Clone, Debug)]
struct PeriodCounts {
    endings: [u32; RequestOutcome::ALL.len()],
    latencies: [u32; BUCKETS],
}

#[derive(Debug, Default)]
struct Past {
    /// The totals when the last period was closed.
    closed: PeriodCounts,
    /// The periods in which a request ended, oldest first.
    periods: VecDeque<(u64, PeriodCounts)>,
}

/// The numbers of the charts, oldest period first. The last period still runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Series {
    /// The length of a period.
    pub(crate) period_seconds: u64,
    /// Requests that ended.
    pub(crate) requests: Vec<u32>,
    /// Requests that the sidecar answered with its own error.
    pub(crate) failed: Vec<u32>,
    /// Requests whose token the upstream rejected.
    pub(crate) rejected: Vec<u32>,
    /// Requests that the upstream answered with 5xx.
    pub(crate) upstream_errors: Vec<u32>,
    /// Requests that the caller cancelled.
    pub(crate) cancelled: Vec<u32>,
    /// The median duration in seconds; `None` without requests. Tunnels and upgraded connections do not count.
    pub(crate) p50: Vec<Option<f64>>,
    /// The 90th percentile, in seconds.
    pub(crate) p90: Vec<Option<f64>>,
    /// The 99th percentile, in seconds.
    pub(crate) p99: Vec<Option<f64>>,
    /// The sum of all periods.
    pub(crate) total: Summary,
}

/// The numbers of all periods together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Requests that ended.
    pub(crate) requests: u64,
    /// Errors of the sidecar, rejected tokens, and 5xx of upstreams.
    pub(crate) errors: u64,
    /// The median duration in seconds.
    pub(crate) p50: Option<f64>,
    /// The 90th percentile, in seconds.
    pub(crate) p90: Option<f64>,
    /// The 99th percentile, in seconds.
    pub(crate) p99: Option<f64>,
}

// === impl RequestOutcome ===

impl RequestOutcome {
    /// Returns whether the request failed.
    pub(crate) const fn is_error(self) -> bool {
        match self {
            Self::Answered | Self::Cancelled => false,
            Self::Failed | Self::Rejected | Self::UpstreamError => true,
        }
    }

    const ALL: [Self; 5] = [
        Self::Answered,
        Self::Cancelled,
        Self::Failed,
        Self::Rejected,
        Self::UpstreamError,
    ];
}

// === impl History ===

impl History {
    /// Returns a history that begins now.
    pub(crate) fn new() -> Self {
        Self::since(Instant::now())
    }

    fn since(start: Instant) -> Self {
        Self {
            start,
            current: AtomicU64::new(0),
            totals: RunningTotals {
                endings: [const { AtomicU32::new(0) }; _],
                latencies: [const { AtomicU32::new(0) }; BUCKETS],
            },
            past: Mutex::default(),
        }
    }

    /// Counts a request that ended at this time. `took` is its duration, `None` for a tunnel or an upgraded connection.
    pub(crate) fn ended(&self, at: Instant, outcome: RequestOutcome, took: Option<Duration>) {
        self.close_before(self.period(at));
        if let Some(count) = self.totals.endings.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = took.and_then(|took| self.totals.latencies.get(bucket(took))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the numbers of the last 15 minutes.
    pub(crate) fn series(&self) -> Series {
        self.series_at(Instant::now())
    }

    fn series_at(&self, now: Instant) -> Series {
        let last = self.period(now);
        let first = (last + 1).saturating_sub(PERIODS as u64);
        let mut periods = vec![PeriodCounts::default(); PERIODS];
        let mut all = PeriodCounts::default();
        let past = lock(&self.past);
        let open = (
            self.current.load(Ordering::Relaxed),
            self.totals.read().since(&past.closed),
        );
        for (number, counts) in past.periods.iter().chain([&open]) {
            // Another thread may have read a later time than `now`.
            let number = (*number).min(last);
            let back = last - number;
            let index = usize::try_from(back).ok().filter(|_| number >= first);
            let place = index.and_then(|back| (PERIODS - 1).checked_sub(back));
            if let Some(period) = place.and_then(|index| periods.get_mut(index)) {
                period.add(counts);
                all.add(counts);
            }
        }
        drop(past);
        Series::of(&periods, &all)
    }

    fn period(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_secs() / PERIOD.as_secs()
    }

    /// Closes the current period if `period` is a later one. One thread wins the compare-and-swap and closes it; a
    /// miscount at the edge is harmless.
    fn close_before(&self, period: u64) {
        let current = self.current.load(Ordering::Relaxed);
        if period <= current {
            return;
        }
        let closed =
            self.current
                .compare_exchange(current, period, Ordering::Relaxed, Ordering::Relaxed);
        if closed.is_ok() {
            let mut past = lock(&self.past);
            past.close(current, self.totals.read());
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Past ===

impl Past {
    fn close(&mut self, period: u64, totals: PeriodCounts) {
        // Another thread has closed a later period, which includes these counts.
        if self.periods.back().is_some_and(|(last, _)| *last >= period) {
            return;
        }
        let counts = totals.since(&self.closed);
        self.closed = totals;
        let is_over = |first: u64| first + PERIODS as u64 <= period;
        while self
            .periods
            .front()
            .is_some_and(|(first, _)| is_over(*first))
        {
            self.periods.pop_front();
        }
        self.periods.push_back((period, counts));
    }
}

// === impl RunningTotals ===

impl RunningTotals {
    fn read(&self) -> PeriodCounts {
        let load = |count: &AtomicU32| count.load(Ordering::Relaxed);
        PeriodCounts {
            endings: self.endings.each_ref().map(load),
            latencies: self.latencies.each_ref().map(load),
        }
    }
}

// === impl PeriodCounts ===

impl PeriodCounts {
    fn of(&self, ending: RequestOutcome) -> u32 {
        self.endings.get(ending as usize).copied().unwrap_or(0)
    }

    fn since(&self, before: &Self) -> Self {
        let mut counts = self.clone();
        for (count, before) in counts.each().zip(before.clone().each()) {
            *count = count.wrapping_sub(*before);
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for (count, other) in self.each().zip(other.clone().each()) {
            *count = count.saturating_add(*other);
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut u32> {
        self.endings.iter_mut().chain(&mut self.latencies)
    }

    fn requests(&self) -> u32 {
        self.endings
            .iter()
            .fold(0, |all, count| all.saturating_add(*count))
    }

    fn errors(&self) -> u64 {
        [
            RequestOutcome::Failed,
            RequestOutcome::Rejected,
            RequestOutcome::UpstreamError,
        ]
        .into_iter()
        .map(|ending| u64::from(self.of(ending)))
        .sum()
    }
}

impl Default for PeriodCounts {
    fn default() -> Self {
        Self {
            endings: [0; _],
            latencies: [0; BUCKETS],
        }
    }
}

// === impl Series ===

impl Series {
    fn of(periods: &[PeriodCounts], all: &PeriodCounts) -> Self {
        let counts = |ending| periods.iter().map(|period| period.of(ending)).collect();
        let quantiles = |q| {
            let of = |period: &PeriodCounts| quantile(&period.latencies, q);
            periods.iter().map(of).collect()
        };
        Self {
            period_seconds: PERIOD.as_secs(),
            requests: periods.iter().map(PeriodCounts::requests).collect(),
            failed: counts(RequestOutcome::Failed),
            rejected: counts(RequestOutcome::Rejected),
            upstream_errors: counts(RequestOutcome::UpstreamError),
            cancelled: counts(RequestOutcome::Cancelled),
            p50: quantiles(0.5),
            p90: quantiles(0.9),
            p99: quantiles(0.99),
            total: Summary {
                requests: all.requests().into(),
                errors: all.errors(),
                p50: quantile(&all.latencies, 0.5),
                p90: quantile(&all.latencies, 0.9),
                p99: quantile(&all.latencies, 0.99),
            },
        }
    }
}

#[cfg(test)]
mod tests;
