use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::{Instant, advance, sleep};

use super::TokenCache;
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::telemetry::Metrics;
use crate::token::clock::Now;
use crate::token::source::TokenSources;
use crate::token::source::scripted::{Scripted, token, unavailable};

const SECOND: Duration = Duration::from_secs(1);

fn cache(capacity: usize, source: &Scripted) -> (TokenCache, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let sources = TokenSources::from_sources([Arc::new(source.clone()) as _]);
    let cache = TokenCache::with_capacity(capacity, sources, Arc::clone(&metrics));
    (cache, metrics)
}

fn hour() -> Scripted {
    Scripted::new(|call| async move { token(&format!("T{call}"), 3600) })
}

fn id(audience: &str) -> TokenKey {
    TokenKey {
        kind: TokenKind::Id {
            audience: audience.into(),
        },
        principal: Principal::Attached,
    }
}

fn access(scopes: &[&str]) -> TokenKey {
    TokenKey {
        kind: TokenKind::Access {
            scopes: scopes.iter().map(|scope| Arc::from(*scope)).collect(),
        },
        principal: Principal::Attached,
    }
}

fn expiry(metrics: &Metrics, credential: &str) -> f64 {
    let name = format!("sidentity_token_expiry_timestamp_seconds{{credential=\"{credential}\"}} ");
    let text = metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_audience_scope_set_and_account_has_its_own_token() {
    let (cache, _) = cache(100, &hour());
    let other_account = TokenKey {
        principal: Principal::Account("a@b.example".into()),
        ..id("https://a")
    };
    let keys = [
        id("https://a"),
        id("https://b"),
        access(&[]),
        access(&["x"]),
        other_account,
    ];
    let mut seen = Vec::new();
    for key in &keys {
        let token = cache.slot(key).token().await.unwrap();
        seen.push(token.reveal().to_owned());
    }
    assert_eq!(seen, ["T1", "T2", "T3", "T4", "T5"]);
    for (key, value) in keys.iter().zip(&seen) {
        let token = cache.slot(key).token().await.unwrap();
        assert_eq!(token.reveal(), value);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_keeps_its_slot_when_its_key_leaves_the_cache() {
    let source = hour();
    let (cache, _) = cache(4, &source);
    let route = cache.slot(&id("https://route"));
    assert_eq!(route.token().await.unwrap().reveal(), "T1");
    for n in 0..100 {
        cache.slot(&id(&format!("https://{n}")));
    }
    assert!(!cache.0.slots.contains(&id("https://route")));
    let again = cache.slot(&id("https://route"));
    assert!(Arc::ptr_eq(&route, &again), "two slots would fetch twice");
    let statuses = cache.statuses();
    assert!(statuses.iter().any(|s| s.key == id("https://route")));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_keys_is_bounded_and_the_most_recently_used_stay() {
    let (cache, _) = cache(4, &hour());
    for n in 0..3000 {
        cache.slot(&id(&format!("https://{n}")));
        cache.slot(&id("https://busy"));
    }
    assert_eq!(cache.statuses().len(), 4);
    assert!(cache.0.slots.contains(&id("https://busy")));
    assert!(cache.0.shared.alive().len() <= 2 * super::CAPACITY);
}

#[tokio::test(start_paused = true)]
async fn requested_audiences_evict_no_access_token_and_no_configured_token() {
    let source = hour();
    let (cache, _) = cache(super::CAPACITY, &source);
    cache.slot(&access(&[])).token().await.unwrap();
    let configured = id("https://route");
    cache.configured_slot(&configured).token().await.unwrap();
    for n in 0..3 * super::CAPACITY {
        cache.slot(&id(&format!("https://{n}")));
    }
    assert_eq!(
        cache.slot(&access(&[])).token().await.unwrap().reveal(),
        "T1"
    );
    let token = cache.configured_slot(&configured).token().await.unwrap();
    assert_eq!(token.reveal(), "T2");
    // The same slot also serves requests that name this key.
    assert_eq!(
        cache.slot(&configured).token().await.unwrap().reveal(),
        "T2"
    );
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_liveness_probe_refreshes_used_and_configured_tokens() {
    let source = hour();
    let (cache, _) = cache(100, &source);
    let route = cache.slot(&id("https://route"));
    route.prefetch();
    cache.slot(&id("https://never"));
    cache.slot(&id("https://used")).token().await.unwrap();
    cache.slot(&id("https://used")).token().await.unwrap();
    // The request that waited for the fetch used the token too.
    cache.slot(&id("https://once")).token().await.unwrap();
    let unused = cache.slot(&id("https://unused"));
    unused.refresh_unless_fresh();
    assert_eq!(cache.refresh_stale().0.len(), 0, "all are fresh");
    sleep(SECOND).await;
    assert_eq!(source.calls(), 4);
    for round in 1..=2 {
        advance(3590 * SECOND).await;
        let refresh = cache.refresh_stale();
        assert_eq!(refresh.0.len(), if round == 1 { 3 } else { 1 });
        refresh.done(SECOND).await;
        assert!(route.ready(Now::now()).is_some());
    }
    assert_eq!(unused.status().left, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_liveness_probe_has_a_time_limit() {
    let source = Scripted::new(|_| async {
        sleep(5 * SECOND).await;
        token("T", 3600)
    });
    let (cache, _) = cache(100, &source);
    let slots = ["https://a", "https://b"].map(|audience| cache.slot(&id(audience)));
    slots.iter().for_each(|slot| slot.prefetch());
    let start = Instant::now();
    let refresh = cache.refresh_stale();
    assert!(!refresh.0.is_empty());
    refresh.done(2 * SECOND).await;
    assert_eq!(start.elapsed(), 2 * SECOND);
    cache.refresh_stale().done(60 * SECOND).await;
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(source.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_metric_shows_the_earliest_expiry_of_the_tokens_in_use() {
    let source = Scripted::new(|call| async move {
        match call {
            1 => token("T1", 600),
            2 => token("T2", 3600),
            3 => token("T3", 1200),
            _ => unavailable("503"),
        }
    });
    let (cache, metrics) = cache(100, &source);
    let seconds = |slot: &crate::token::Slot| {
        let at = slot.status().expires_at.unwrap();
        at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
    };
    let (idle, busy) = (
        cache.slot(&id("https://idle")),
        cache.slot(&id("https://busy")),
    );
    idle.refresh_unless_fresh();
    sleep(SECOND).await;
    busy.token().await.unwrap();
    assert_eq!(expiry(&metrics, "access"), 0.0);
    assert_eq!(expiry(&metrics, "id"), seconds(&idle));
    advance(601 * SECOND).await;
    let _ = cache.refresh_stale();
    assert_eq!(expiry(&metrics, "id"), seconds(&busy));
    cache.slot(&access(&[])).token().await.unwrap();
    assert!(expiry(&metrics, "access") > 0.0);
    advance(3600 * SECOND).await;
    busy.token().await.unwrap_err();
    assert_eq!(
        expiry(&metrics, "id"),
        seconds(&busy),
        "it should have been replaced"
    );
}
