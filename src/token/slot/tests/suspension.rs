//! Instances that are suspended, and clocks that are set.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_resumed_instance_does_not_send_an_expired_token() {
    let rig = lives(&[3600]);
    assert_eq!(rig.get().await, "T1");
    jump_ahead(secs(3600));
    assert!(rig.slot.ready(Now::now()).is_none());
    assert!(!rig.slot.has_token());
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_does_not_lengthen_a_token() {
    let rig = lives(&[3600]);
    assert_eq!(rig.get().await, "T1");
    jump_back(secs(7200));
    advance(secs(3600)).await;
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_fetch_is_not_waited_for() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            std::future::pending::<()>().await;
        }
        token(&format!("T{call}"), 3600)
    }));
    rig.slot.refresh_unless_fresh();
    settle().await;
    jump_ahead(secs(600));
    assert_eq!(rig.get_at_once().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_suspended_fetch_does_not_replace_a_newer_token() {
    let thaw = Arc::new(Notify::new());
    let thawed = Arc::clone(&thaw);
    let rig = rig(Scripted::new(move |call| {
        let thawed = Arc::clone(&thawed);
        async move {
            if call == 1 {
                thawed.notified().await;
                return token("T1", 1200);
            }
            token("T2", 3600)
        }
    }));
    rig.slot.refresh_unless_fresh();
    settle().await;
    jump_ahead(secs(600));
    assert_eq!(rig.get().await, "T2");
    thaw.notify_one();
    settle().await;
    assert_eq!(rig.fetches("ok"), 2, "the first fetch has ended");
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_request_gets_the_token_of_the_next_fetch() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            jump_ahead(secs(600));
            return unavailable("the connection is gone");
        }
        token("T2", 3600)
    }));
    assert_eq!(rig.get_at_once().await, "T2");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expired_during_a_suspension_is_not_served() {
    let rig = rig(Scripted::new(|call| async move {
        let result = token(&format!("T{call}"), 3600);
        if call == 1 {
            jump_ahead(secs(3600));
        }
        result
    }));
    assert_eq!(rig.get().await, "T2");
}
