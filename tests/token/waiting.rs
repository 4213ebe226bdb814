//! Many requests at once: who asks, and who waits for whom.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::support::metadata::{Answer, Gate, Kind, Metadata, in_seconds, jwt};
use super::{access_slot, cache, error, get, id};

#[tokio::test]
async fn a_hundred_first_requests_make_one_question() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::access("T1", 3600).behind(&gate)]).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&slot);
        requests.spawn(async move { get(&slot).await });
    }
    server.arrived(Kind::Access, 1).await;
    gate.open();
    assert!(requests.join_all().await.iter().all(|token| token == "T1"));
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_hundred_first_requests_share_one_refusal() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::status(403, "no").behind(&gate)]).await;
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&slot);
        requests.spawn(async move { error(&slot).await.detail().to_owned() });
    }
    server.arrived(Kind::Access, 1).await;
    gate.open();
    let errors = requests.join_all().await;
    assert!(errors.iter().all(|detail| *detail == errors[0]));
    assert!(errors[0].contains("403 Forbidden: \"no\""), "{}", errors[0]);
    assert_eq!(error(&slot).await.detail(), errors[0]);
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn a_request_that_goes_away_leaves_its_token_to_the_next() {
    let gate = Gate::new();
    let (server, slot) = access_slot([Answer::access("T1", 3600).behind(&gate)]).await;
    let gone = tokio::spawn({
        let slot = Arc::clone(&slot);
        async move { slot.token().await.map(drop) }
    });
    server.arrived(Kind::Access, 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(get(&slot).await, "T1");
    assert_eq!(server.count(Kind::Access), 1);
}

#[tokio::test]
async fn no_more_than_four_questions_are_asked_at_once() {
    let gate = Gate::new();
    let server = Metadata::start().await;
    server.script(
        Kind::Identity,
        [Answer::with({
            let gate = gate.clone();
            move |request| {
                let audience = request.parameter("audience").unwrap();
                Answer::ok(jwt(&audience, in_seconds(3600))).behind(&gate)
            }
        })],
    );
    let cache = cache(&server);
    let mut requests = JoinSet::new();
    for n in 0..10 {
        let slot = cache.slot(&id(&format!("https://{n}.example")));
        requests.spawn(async move { get(&slot).await });
    }
    server.arrived(Kind::Identity, 4).await;
    let fifth = server.arrived(Kind::Identity, 5);
    let fifth = tokio::time::timeout(Duration::from_millis(200), fifth).await;
    assert!(fifth.is_err(), "a fifth question");
    gate.open();
    assert_eq!(requests.join_all().await.len(), 10);
    assert_eq!(server.count(Kind::Identity), 10);
}
