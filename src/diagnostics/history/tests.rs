use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn after(history: &History, seconds: u64) -> Instant {
    history.start + Duration::from_secs(seconds)
}

fn answered(history: &History, at: u64, count: u32) {
    for _ in 0..count {
        history.ended(after(history, at), RequestOutcome::Answered, Some(MS));
    }
}

#[test]
fn a_sidecar_without_requests_shows_fifteen_empty_minutes() {
    let series = History::new().series();
    assert_eq!(series.requests, [0; 90]);
    assert_eq!(series.p99, [None; 90]);
    assert_eq!(series.total, Summary::default());
    assert_eq!(series.period_seconds * 90, 15 * 60);
}

#[test]
fn a_request_is_counted_in_the_ten_seconds_in_which_it_ended() {
    let history = History::new();
    answered(&history, 0, 3);
    answered(&history, 9, 1);
    answered(&history, 25, 2);
    let series = history.series_at(after(&history, 31));
    assert_eq!(series.requests[86..], [4, 0, 2, 0]);
    assert_eq!(series.total.requests, 6);
    // What is not closed yet is shown too, and in its own place.
    answered(&history, 32, 5);
    assert_eq!(
        history.series_at(after(&history, 39)).requests[86..],
        [4, 0, 2, 5]
    );
    assert_eq!(
        history.series_at(after(&history, 49)).requests[86..],
        [0, 2, 5, 0]
    );
}

#[test]
fn after_fifteen_minutes_a_request_is_forgotten() {
    let history = History::new();
    answered(&history, 5, 1);
    let shown = |at| history.series_at(after(&history, at)).total.requests;
    assert_eq!(shown(899), 1);
    assert_eq!(shown(900), 0);
    // And so is one whose period was closed long after it.
    answered(&history, 5_000, 2);
    assert_eq!(shown(5_000), 2);
    answered(&history, 1_000_000, 1);
    assert_eq!(shown(1_000_000), 1);
    assert_eq!(history.past.lock().unwrap().periods.len(), 1);
}

#[test]
fn at_most_ninety_periods_are_kept() {
    let history = History::new();
    for at in 0..2_000 {
        answered(&history, at * 5, 1);
    }
    let series = history.series_at(after(&history, 9_999));
    assert_eq!(series.requests, [2; 90]);
    assert!(history.past.lock().unwrap().periods.len() <= PERIODS);
}

#[test]
fn each_outcome_is_counted_separately() {
    let history = History::new();
    for (ending, times) in [
        (RequestOutcome::Answered, 5),
        (RequestOutcome::Cancelled, 4),
        (RequestOutcome::Failed, 3),
        (RequestOutcome::Rejected, 2),
        (RequestOutcome::UpstreamError, 1),
    ] {
        for _ in 0..times {
            history.ended(after(&history, 1), ending, Some(MS));
        }
    }
    let series = history.series_at(after(&history, 2));
    assert_eq!(series.requests[89], 15);
    assert_eq!(series.cancelled[89], 4);
    assert_eq!(series.failed[89], 3);
    assert_eq!(series.rejected[89], 2);
    assert_eq!(series.upstream_errors[89], 1);
    assert_eq!(series.total.errors, 6, "who leaves makes no error");
}

#[test]
fn percentiles_separate_slow_requests_from_fast_ones() {
    let history = History::new();
    for n in 0..100 {
        let took = if n < 95 { 10 * MS } else { 2_000 * MS };
        history.ended(after(&history, 1), RequestOutcome::Answered, Some(took));
    }
    let series = history.series_at(after(&history, 2));
    let near = |value: Option<f64>, wanted: f64| {
        let value = value.expect("a value");
        assert!((value / wanted - 1.0).abs() < 0.2, "{value} for {wanted}");
    };
    near(series.p50[89], 0.010);
    near(series.p90[89], 0.010);
    near(series.p99[89], 2.0);
    near(series.total.p99, 2.0);
}

#[test]
fn a_tunnel_counts_and_has_no_latency() {
    let history = History::new();
    history.ended(after(&history, 1), RequestOutcome::Answered, None);
    let series = history.series_at(after(&history, 2));
    assert_eq!(series.requests[89], 1);
    assert_eq!(series.p50[89], None);
}

#[test]
fn no_count_is_lost_if_the_clock_goes_back() {
    let history = History::new();
    answered(&history, 100, 1);
    answered(&history, 50, 1);
    let series = history.series_at(after(&history, 20));
    assert_eq!(series.requests[89], 2);
}

#[test]
fn no_count_is_lost_at_the_end_of_a_period() {
    let history = Arc::new(History::new());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let history = history.clone();
            thread::spawn(move || {
                for at in 0..80 {
                    answered(&history, at * 10, 50);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let series = history.series_at(after(&history, 799));
    assert_eq!(series.total.requests, 4 * 80 * 50);
}

proptest! {
    #[test]
    fn a_latency_is_reported_to_within_a_quarter(micros in 64u64..120_000_000) {
        let took = Duration::from_micros(micros);
        let mut buckets = [0_u32; BUCKETS];
        buckets[bucket(took)] += 1;
        let read = quantile(&buckets, 0.5).unwrap();
        prop_assert!((read / took.as_secs_f64() - 1.0).abs() <= 0.26, "{micros} read as {read}");
    }

    #[test]
    fn any_duration_has_a_bucket(seconds: u64, nanos in 0u32..1_000_000_000) {
        prop_assert!(bucket(Duration::new(seconds, nanos)) < BUCKETS);
    }
}
