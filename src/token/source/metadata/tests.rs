use std::time::Duration;

use super::{ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, Peer, read_token, with_jitter};
use crate::destination::Host;
use crate::policy::TokenKind;
use crate::token::clock::Now;

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

#[test]
fn an_answer_that_lay_in_a_frozen_instance_is_asked_for_again_once_it_is_spent() {
    let kind = TokenKind::Access { scopes: [].into() };
    let start = Now::now();
    let read = |life: u64, frozen: u64| {
        let body = format!(r#"{{"access_token":"T","expires_in":{life}}}"#);
        // As in a suspended machine: the monotonic clock stood still.
        let wall = start.wall + Duration::from_secs(frozen);
        read_token(&kind, body.as_bytes(), start, Now { wall, ..start })
    };
    let retry = |life, frozen| read(life, frozen).map_err(|failure| failure.retry).err();
    assert_eq!(retry(34, 6), Some(true), "28 s left");
    assert_eq!(retry(34, 3600), Some(true), "expired");
    assert_eq!(retry(3600, 6), None, "it is good all the same");
    assert_eq!(retry(28, 2), None, "it was not frozen");
    assert_eq!(retry(4, 0), Some(false), "nonsense");
}

#[test]
fn the_server_at_the_address_that_all_know_is_called_by_its_name() {
    for (host, port, expected) in [
        ("169.254.169.254", 80, "metadata.google.internal"),
        ("metadata.google.internal", 80, "metadata.google.internal"),
        ("169.254.169.254", 8080, "169.254.169.254:8080"),
        ("localhost", 8980, "localhost:8980"),
        ("[fd20:ce::254]", 80, "[fd20:ce::254]"),
    ] {
        let peer = Peer::new(&Host::parse(host).unwrap(), port);
        assert_eq!(peer.authority, expected);
    }
}
