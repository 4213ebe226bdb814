//! Histograms of latencies with four buckets for each power of two, from 64 µs to two minutes. The error of a quantile
//! is at most 25 %.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The exponent of the lowest bucket, which includes all shorter latencies: 2^6 µs.
const LOWEST: u32 = 6;
/// The exponent of the highest buckets, the last of which includes all longer latencies: 2^26 µs is 67 s.
const HIGHEST: u32 = 26;
/// The buckets for each power of two, as an exponent.
const PARTS: u32 = 2;

/// The number of buckets.
pub(super) const BUCKETS: usize = ((HIGHEST - LOWEST + 1) << PARTS) as usize;

/// Counts latencies since the start of the process.
#[derive(Debug)]
pub(crate) struct Latencies([AtomicU64; BUCKETS]);

/// The counts of [`Latencies`] at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LatencyCounts([u64; BUCKETS]);

// === impl Latencies ===

impl Latencies {
    pub(crate) fn count(&self, took: Duration) {
        if let Some(count) = self.0.get(bucket(took)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> LatencyCounts {
        LatencyCounts(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

// === impl LatencyCounts ===

impl LatencyCounts {
    /// Returns a quantile in seconds, `None` without counts. `part` is 0.5 for the median.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        quantile(&self.0, part)
    }

    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }
}

impl Default for LatencyCounts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

/// Returns the bucket of a latency.
pub(super) fn bucket(took: Duration) -> usize {
    let longest = (1 << (HIGHEST + 1)) - 1;
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.clamp(1 << LOWEST, longest);
    let doubling = micros.ilog2();
    let part = (micros >> (doubling - PARTS)) - (1 << PARTS);
    (((doubling - LOWEST) << PARTS) as usize) + usize::try_from(part).unwrap_or(0)
}

/// Returns a quantile in seconds, interpolated within its bucket; `None` without counts.
pub(super) fn quantile<C: Copy + Into<u64>>(buckets: &[C; BUCKETS], part: f64) -> Option<f64> {
    let all = buckets
        .iter()
        .fold(0_u64, |all, count| all.saturating_add((*count).into()));
    if all == 0 {
        return None;
    }
    // Rounded up: of two requests, the slower one is the 90th percentile.
    let rank = (part * all as f64).ceil().max(1.0);
    let mut before = 0.0;
    for (index, count) in buckets.iter().enumerate() {
        let count = (*count).into() as f64;
        if before + count >= rank {
            let (low, high) = (edge(index), edge(index + 1));
            return Some(low + (high - low) * (rank - before) / count);
        }
        before += count;
    }
    None
}

/// Returns the lower bound of a bucket, in seconds.
fn edge(index: usize) -> f64 {
    let parts = 1 << PARTS;
    let doubling = (index / parts) as i32 + LOWEST as i32;
    let part = (index % parts) as f64 / parts as f64;
    2f64.powi(doubling) * (1.0 + part) / 1e6
}
