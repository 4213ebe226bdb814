//! Concurrent requests: which one starts the fetch, and which ones wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::support::metadata::{Answer, Gate, Kind, Metadata, in_seconds, jwt};
use super::{access, access_slot, cache, error, get, id};

#[tokio::test]
async fn a_hundred_first_requests_share_one_fetch() {
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
async fn a_hundred_first_requests_share_one_error() {
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
async fn a_cancelled_request_leaves_its_token_to_the_next() {
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

/// Starts a server that answers for any audience, and with access tokens, once the gate is open.
async fn gated(gate: &Gate) -> Metadata {
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
    server
}

async fn nothing_more(server: &Metadata, kind: Kind, count: usize) {
    let more = server.arrived(kind, count + 1);
    let more = tokio::time::timeout(Duration::from_millis(200), more).await;
    assert!(more.is_err(), "more than {count} questions");
}

#[tokio::test]
async fn at_most_four_fetches_run_at_once() {
    let gate = Gate::new();
    let server = gated(&gate).await;
    let cache = cache(&server);
    let mut requests = JoinSet::new();
    for n in 0..10 {
        let slot = cache.configured_slot(&id(&format!("https://{n}.example")));
        requests.spawn(async move { get(&slot).await });
    }
    server.arrived(Kind::Identity, 4).await;
    nothing_more(&server, Kind::Identity, 4).await;
    gate.open();
    assert_eq!(requests.join_all().await.len(), 10);
    assert_eq!(server.count(Kind::Identity), 10);
}

#[tokio::test]
async fn half_of_the_fetches_are_reserved_for_routes_and_access_tokens() {
    let gate = Gate::new();
    let server = gated(&gate).await;
    let cache = cache(&server);
    let mut invented = JoinSet::new();
    for n in 0..400 {
        let slot = cache.slot(&id(&format!("https://{n}.example")));
        invented.spawn(async move { slot.token().await.is_ok() });
    }
    server.arrived(Kind::Identity, 2).await;
    nothing_more(&server, Kind::Identity, 2).await;
    let at_once = Duration::from_secs(3);
    let access = cache.slot(&access(&[]));
    let token = tokio::time::timeout(at_once, get(&access)).await;
    assert_eq!(token.expect("no wait"), "test-access-token");
    // A route requests a token that is already queued, and one that is not.
    for audience in ["https://399.example", "https://route.example"] {
        let before = server.count(Kind::Identity);
        cache.slot(&id(audience)).prefetch();
        server.arrived(Kind::Identity, before + 1).await;
        let asked = server.requests(Kind::Identity).pop().unwrap();
        assert_eq!(asked.parameter("audience").as_deref(), Some(audience));
    }
    gate.open();
    assert!(invented.join_all().await.into_iter().all(|got| got));
}

#[tokio::test]
async fn the_queue_of_requested_audiences_is_bounded() {
    let gate = Gate::new();
    let server = gated(&gate).await;
    let cache = cache(&server);
    let mut invented = JoinSet::new();
    for n in 0..1_500 {
        let slot = cache.slot(&id(&format!("https://{n}.example")));
        invented.spawn(async move { slot.token().await.map(drop) });
    }
    let mut refused = 0;
    while refused < 1_500 - 1_024 {
        let failed = invented.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(failed.detail().contains("at once"), "{failed}");
        refused += 1;
    }
    gate.open();
    assert!(invented.join_all().await.iter().all(Result::is_ok));
}
