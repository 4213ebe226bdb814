//! The time for which a token is used, and the time of its refresh.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_not_fetched_again() {
    let rig = lives(&[3600]);
    assert_eq!(rig.get().await, "T1");
    for _ in 0..33 {
        advance(secs(100)).await;
        assert_eq!(rig.get_at_once().await, "T1");
    }
    assert_eq!(rig.calls(), 1);
    assert_eq!((rig.lookups("wait"), rig.lookups("hit")), (1, 33));
}

#[tokio::test(start_paused = true)]
async fn jitter_delays_a_refresh_by_at_most_20_seconds() {
    let mut stale_at = Vec::new();
    for _ in 0..200 {
        let now = Now::now();
        let token = Token::new("T", now.after(secs(3600)), now).unwrap();
        let margin = (0..=300)
            .rev()
            .find(|left| {
                let mono = now.mono + secs(3600 - left);
                let wall = now.wall + secs(3600 - left);
                token.freshness(Now { wall, mono }) != crate::token::value::Freshness::Fresh
            })
            .unwrap();
        stale_at.push(margin);
    }
    assert!(stale_at.iter().all(|left| (205..=225).contains(left)));
    assert!(stale_at.iter().any(|left| *left != stale_at[0]));
}

#[tokio::test(start_paused = true)]
async fn the_same_token_with_a_shorter_life_does_not_expire_earlier() {
    let rig = rig(Scripted::new(|call| async move {
        token("T1", if call == 1 { 220 } else { 20 })
    }));
    rig.get().await;
    advance(secs(10)).await;
    rig.get().await;
    settle().await;
    assert_eq!(rig.calls(), 2);
    assert_eq!(rig.slot.status().left, Some(secs(210)));
}

#[tokio::test(start_paused = true)]
async fn the_same_token_with_a_longer_life_expires_later() {
    let rig = rig(Scripted::new(|_| async { token("T1", 220) }));
    rig.get().await;
    advance(secs(10)).await;
    rig.get().await;
    settle().await;
    assert_eq!(rig.slot.status().left, Some(secs(220)));
}

/// With one request per second, no request waits while the source works, so each refresh begins before the token
/// expires.
#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_a_refresh() {
    for life in [60, 100, 226, 300, 3600] {
        let rig = rig(Scripted::new(move |call| async move {
            sleep(secs(1)).await;
            token(&format!("T{call}"), life)
        }));
        rig.get().await;
        for _ in 0..2 * life {
            advance(secs(1)).await;
            rig.get_at_once().await;
            settle().await;
        }
        assert!(rig.calls() >= 3, "{life} s: {} fetches", rig.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_served_while_its_refresh_is_in_flight() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 2 {
            sleep(secs(2)).await;
        }
        token(&format!("T{call}"), if call == 1 { 220 } else { 3600 })
    }));
    assert_eq!(rig.get().await, "T1");
    assert_eq!(rig.get_at_once().await, "T1", "it starts the refresh");
    settle().await;
    assert!(rig.slot.status().fetching);
    assert_eq!(rig.get_at_once().await, "T1");
    sleep(secs(3)).await;
    assert_eq!(rig.get_at_once().await, "T2");
    assert_eq!((rig.calls(), rig.lookups("stale")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_if_the_token_expires_soon() {
    let rig = rig(Scripted::new(|call| async move {
        sleep(secs(1)).await;
        token(&format!("T{call}"), if call == 1 { 25 } else { 3600 })
    }));
    assert_eq!(rig.get().await, "T1");
    sleep(secs(3)).await;
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_never_fresh_do_not_cause_a_fetch_per_request() {
    let rig = lives(&[100]);
    for _ in 0..60 {
        rig.get().await;
        settle().await;
        advance(secs(1)).await;
    }
    assert!(rig.calls() <= 8, "{} fetches in 60 s", rig.calls());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_source_returns_again_is_not_fetched_per_request() {
    let start = Instant::now();
    let (rig, fetches) = recorded(move || token("T1", 220 - start.elapsed().as_secs()));
    while start.elapsed() < secs(150) {
        assert_eq!(rig.get().await, "T1");
        settle().await;
        advance(Duration::from_millis(250)).await;
    }
    let pauses = pauses(&fetches);
    // The first refresh may follow the first fetch at once.
    assert!(
        pauses.iter().skip(1).all(|pause| *pause >= secs(10)),
        "{pauses:?}"
    );
    assert_eq!(rig.fetches("ok"), 1);
    assert_eq!(rig.fetches("unchanged"), pauses.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_soon_is_fetched_more_often_but_not_per_request() {
    let start = Instant::now();
    let (rig, fetches) = recorded(move || token("T1", 20 - start.elapsed().as_secs()));
    while start.elapsed() < secs(12) {
        assert_eq!(rig.get_at_once().await, "T1");
        settle().await;
        advance(Duration::from_millis(250)).await;
    }
    let pauses = pauses(&fetches);
    assert!((4..=8).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause >= secs(2)), "{pauses:?}");
}
