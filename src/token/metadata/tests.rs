use std::time::Duration;

use super::{ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, with_jitter};

#[test]
fn five_attempts_span_a_server_that_starts_after_700_ms_and_stay_well_within_the_budget() {
    for _ in 0..1_000 {
        let mut pause = FIRST_PAUSE;
        let mut total = Duration::ZERO;
        for _ in 1..ATTEMPTS {
            total += with_jitter(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        let span = Duration::from_millis(750)..=Duration::from_millis(1_500);
        assert!(span.contains(&total), "{total:?}");
    }
}
