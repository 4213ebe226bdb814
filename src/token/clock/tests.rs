//! The clocks, and a wall clock that tests can set. It advances with tokio's (paused) time.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Now;

thread_local! {
    static EPOCH: (Instant, SystemTime) = (Instant::now(), SystemTime::now());
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static BEHIND: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The wall clock of this test.
pub(super) fn wall(mono: Instant) -> SystemTime {
    let (started, epoch) = EPOCH.with(|epoch| *epoch);
    epoch + mono.saturating_duration_since(started) + AHEAD.get() - BEHIND.get()
}

/// Sets the wall clock forward while the monotonic clock stands still, as in an instance that was frozen.
pub(in crate::token) fn jump_ahead(by: Duration) {
    AHEAD.set(AHEAD.get() + by);
}

/// Sets the wall clock back.
pub(in crate::token) fn jump_back(by: Duration) {
    BEHIND.set(BEHIND.get() + by);
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn time_passes_on_both_clocks() {
    let start = Now::now();
    let deadline = start.after(3 * MINUTE);
    tokio::time::advance(MINUTE).await;
    assert_eq!(deadline.left(Now::now()), 2 * MINUTE);
    assert_eq!(Now::now().since(start), MINUTE);
    tokio::time::advance(3 * MINUTE).await;
    assert_eq!(deadline.left(Now::now()), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_instance_is_detected_by_the_wall_clock() {
    let start = Now::now();
    let deadline = start.after(3 * MINUTE);
    jump_ahead(2 * MINUTE);
    assert_eq!(deadline.left(Now::now()), MINUTE);
    assert_eq!(Now::now().since(start), 2 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_lengthens_no_time_span() {
    let start = Now::now();
    let deadline = start.after(3 * MINUTE);
    jump_back(60 * MINUTE);
    tokio::time::advance(MINUTE).await;
    assert_eq!(deadline.left(Now::now()), 2 * MINUTE);
    assert_eq!(Now::now().since(start), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_span_is_over_after_its_wait_even_if_the_wall_clock_lags() {
    let tick = Duration::from_millis(4);
    jump_back(tick);
    let deadline = Now::now().after(MINUTE);
    jump_ahead(tick);
    let told = deadline.left(Now::now());
    assert_eq!(told, MINUTE - tick);
    tokio::time::advance(told).await;
    jump_back(tick);
    assert_eq!(deadline.left(Now::now()), Duration::ZERO);
}

#[test]
fn a_span_that_overflows_the_clock_ends_at_once() {
    let now = Now::now();
    assert_eq!(now.after(Duration::MAX).left(now), Duration::ZERO);
}
