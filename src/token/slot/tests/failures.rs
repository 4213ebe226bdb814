//! Failed fetches: the errors of requests, and the time of the next fetch.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hundred_first_requests_share_one_error_and_the_next_ones_fail_at_once() {
    let rig = rig(Scripted::new(|call| async move {
        sleep(secs(1)).await;
        unavailable(&format!("failure {call}"))
    }));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&rig.slot);
        requests.spawn(async move { slot.token().await.unwrap_err().detail().to_owned() });
    }
    let errors = requests.join_all().await;
    assert!(errors.iter().all(|error| error == "token: failure 1"));
    advance(Duration::from_millis(400)).await;
    let start = Instant::now();
    let error = rig.error().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(error.detail(), "token: failure 1");
    assert_eq!(error.kind(), ErrorKind::TokenUnavailable);
    assert_eq!(error.wait(), Some(Duration::from_millis(600)));
    assert_eq!(rig.calls(), 1);
    assert_eq!(rig.lookups("error"), 101);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_followed_by_another_fetch() {
    let rig = rig(Scripted::new(|call| async move {
        match call {
            1..=3 => refused("not yet"),
            _ => token("T", 3600),
        }
    }));
    for wait in [1, 2, 4] {
        rig.error().await;
        advance(secs(wait)).await;
    }
    assert_eq!(rig.get().await, "T");
    let status = rig.slot.status();
    assert_eq!((status.failures, status.last_error), (0, None));
}

#[tokio::test(start_paused = true)]
async fn the_next_fetch_works_after_one_that_panicked() {
    let rig = rig(Scripted::new(|call| async move {
        assert!(call > 1, "this test's own panic");
        token("T2", 3600)
    }));
    assert_eq!(rig.error().await.kind(), ErrorKind::TokenUnavailable);
    advance(secs(1)).await;
    assert_eq!(rig.get().await, "T2");
}

#[test]
fn the_next_fetch_works_after_the_end_of_a_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            std::future::pending::<()>().await;
        }
        token(&format!("T{call}"), 3600)
    }));
    let first = runtime();
    first.block_on(async {
        rig.slot.refresh_unless_fresh();
        settle().await;
    });
    drop(first);
    assert!(!rig.slot.status().fetching);
    runtime().block_on(async {
        rig.error().await;
        advance(secs(1)).await;
        assert_eq!(rig.get().await, "T2");
    });
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_does_not_cancel_the_fetch() {
    let rig = rig(Scripted::new(|_| async {
        sleep(Duration::from_millis(500)).await;
        token("T1", 3600)
    }));
    let gone = tokio::time::timeout(Duration::from_millis(100), rig.slot.token()).await;
    assert!(gone.is_err());
    sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.get_at_once().await, "T1");
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_pauses_between_failures_grow_to_30_seconds() {
    let start = Instant::now();
    let (rig, fetches) = recorded(|| refused("no"));
    while start.elapsed() < secs(300) {
        rig.error().await;
        advance(Duration::from_millis(250)).await;
    }
    let pauses = pauses(&fetches);
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(
        pauses
            .iter()
            .all(|pause| (secs(1)..=secs(31)).contains(pause)),
        "{pauses:?}"
    );
    assert!((8..=16).contains(&pauses.len()), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_the_next_fetch() {
    let (rig, fetches) = recorded(|| {
        unavailable("limited").map_err(|mut error| {
            error.retry_after = Some(secs(20));
            error
        })
    });
    assert_eq!(rig.error().await.wait(), Some(secs(20)));
    for _ in 0..25 {
        advance(secs(1)).await;
        rig.error().await;
    }
    let pauses = pauses(&fetches);
    assert!(pauses.len() == 1 && pauses[0] >= secs(20), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_token_in_use() {
    let rig = rig(Scripted::new(|call| async move {
        match call {
            1 => token("T1", 220),
            2..=4 => unavailable("503"),
            _ => token("T2", 3600),
        }
    }));
    assert_eq!(rig.get().await, "T1");
    for _ in 0..30 {
        rig.get_at_once().await;
        settle().await;
        advance(secs(1)).await;
    }
    assert_eq!(rig.get_at_once().await, "T2");
    assert_eq!(rig.lookups("error"), 0);
    assert_eq!((rig.fetches("error"), rig.fetches("ok")), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn if_refreshes_fail_the_token_is_served_until_shortly_before_expiry() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            token("T1", 40)
        } else {
            refused("no such account")
        }
    }));
    assert_eq!(rig.get().await, "T1");
    let error = loop {
        let left = rig.slot.status().left.unwrap();
        match rig.slot.token().await {
            Ok(_) => assert!(left > secs(5), "served with {left:?} left"),
            Err(error) => {
                assert!(left <= secs(5), "not served with {left:?} left");
                break error;
            }
        }
        advance(secs(1)).await;
    };
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(error.detail(), "token: no such account");
}
