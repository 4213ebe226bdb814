//! Tokens that an upstream rejected with 401.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_by_one_fetch_for_all() {
    let rig = rig(Scripted::new(|call| async move {
        sleep(secs(1)).await;
        token(&format!("T{call}"), 3600)
    }));
    let suspect = rig.slot.token().await.unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..10 {
        let (slot, suspect) = (Arc::clone(&rig.slot), Arc::clone(&suspect));
        requests.spawn(async move {
            slot.fetch_replacement(&suspect)
                .await
                .unwrap()
                .reveal()
                .to_owned()
        });
    }
    assert!(requests.join_all().await.iter().all(|token| token == "T2"));
    assert_eq!(rig.calls(), 2);
    let other = rig.slot.fetch_replacement(&suspect).await;
    assert_eq!(other.unwrap().reveal(), "T2", "known without a fetch");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_sent_again_starts_a_fetch() {
    let rig = lives(&[3600]);
    let suspect = rig.slot.token().await.unwrap();
    rig.slot.start_replacement(&suspect);
    assert_eq!(rig.calls(), 1, "it does not wait");
    settle().await;
    assert_eq!(rig.get_at_once().await, "T2");
    assert!(!rig.slot.status().suspect);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_causes_no_fetch_during_backoff() {
    let rig = rig(Scripted::new(|call| async move {
        match call {
            1 => token("T1", 227),
            _ => unavailable("503"),
        }
    }));
    let suspect = rig.slot.token().await.unwrap();
    advance(secs(3)).await;
    rig.get().await;
    settle().await;
    assert!(rig.slot.fetch_replacement(&suspect).await.is_none());
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn rejections_cause_at_most_one_fetch_a_minute() {
    let (rig, fetches) = recorded(|| token("T1", 3600));
    let suspect = rig.slot.token().await.unwrap();
    for _ in 0..600 {
        assert!(rig.slot.fetch_replacement(&suspect).await.is_none());
        assert_eq!(rig.get_at_once().await, "T1", "the token is still served");
        advance(secs(1)).await;
    }
    let pauses = pauses(&fetches);
    // The first rejection may follow the first fetch at once.
    assert!(
        pauses.iter().skip(1).all(|pause| *pause >= secs(60)),
        "{pauses:?}"
    );
    assert!(pauses.len() > 5, "{pauses:?}");
    assert!(rig.slot.status().suspect);
}
