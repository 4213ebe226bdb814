//! Latencies in buckets that grow with what they hold: four to each doubling, from 64 µs to two minutes. What is read out of
//! them is off by a quarter at most, and by less where many requests are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The lowest bucket ends here and holds all that is shorter: 2^6 µs.
const LOWEST: u32 = 6;
/// The highest begins in this doubling and holds all that is longer: 2^26 µs is a good minute.
const HIGHEST: u32 = 26;
/// Buckets in a doubling, as a power of two.
const PARTS: u32 = 2;

/// How many there are.
pub(super) const BUCKETS: usize = ((HIGHEST - LOWEST + 1) << PARTS) as usize;

/// Counts latencies for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Latencies([AtomicU64; BUCKETS]);

/// What [`Latencies`] counted up to one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyCounts([u64; BUCKETS]);

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
    /// Seconds that this part of all took at most; none of none.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        quantile(&self.0, part)
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
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

/// The bucket of a latency.
pub(super) fn bucket(took: Duration) -> usize {
    let longest = (1 << (HIGHEST + 1)) - 1;
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.clamp(1 << LOWEST, longest);
    let doubling = micros.ilog2();
    let part = (micros >> (doubling - PARTS)) - (1 << PARTS);
    (((doubling - LOWEST) << PARTS) as usize) + usize::try_from(part).unwrap_or(0)
}

/// Seconds that this part of all took at most, taken from within the bucket that it falls into; none of none.
pub(super) fn quantile<C: Copy + Into<u64>>(buckets: &[C; BUCKETS], part: f64) -> Option<f64> {
    let all = buckets
        .iter()
        .fold(0_u64, |all, count| all.saturating_add((*count).into()));
    if all == 0 {
        return None;
    }
    // The rank of a whole request, so that one slow request of two is the p90.
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

/// Where a bucket begins, in seconds.
fn edge(index: usize) -> f64 {
    let parts = 1 << PARTS;
    let doubling = (index / parts) as i32 + LOWEST as i32;
    let part = (index % parts) as f64 / parts as f64;
    2f64.powi(doubling) * (1.0 + part) / 1e6
}
