//! Tests of the rules of a slot, on paused time and with a scripted source.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};

use super::{Slot, SlotState};
use crate::error::ErrorKind;
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::telemetry::Metrics;
use crate::token::clock::Now;
use crate::token::clock::tests::{jump_ahead, jump_back};
use crate::token::fetch_error::FetchError;
use crate::token::source::TokenSources;
use crate::token::source::scripted::{Scripted, refused, token, unavailable};
use crate::token::{Token, TokenCache};

mod failures;
mod freshness;
mod schedules;
mod suspension;
mod unauthorized;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Rig {
    source: Scripted,
    slot: Arc<Slot>,
    metrics: Arc<Metrics>,
    cache: TokenCache,
}

fn rig(source: Scripted) -> Rig {
    let metrics = Arc::new(Metrics::new());
    let cache = TokenCache::new(
        TokenSources::from_sources([Arc::new(source.clone()) as _]),
        Arc::clone(&metrics),
    );
    let slot = cache.slot(&TokenKey {
        kind: TokenKind::Id {
            audience: "https://a.example".into(),
        },
        principal: Principal::Attached,
    });
    Rig {
        source,
        slot,
        metrics,
        cache,
    }
}

/// Fetch number n returns `Tn`, which lives for the n-th of these seconds, or for the last of them.
fn lives(seconds: &'static [u64]) -> Rig {
    rig(Scripted::new(move |call| async move {
        let life = seconds.get(call - 1).or_else(|| seconds.last()).unwrap();
        token(&format!("T{call}"), *life)
    }))
}

impl Rig {
    async fn get(&self) -> String {
        self.slot
            .token()
            .await
            .expect("a token")
            .reveal()
            .to_owned()
    }

    /// Returns the token, and asserts that the request does not wait.
    async fn get_at_once(&self) -> String {
        let start = Instant::now();
        let token = self.get().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the request waited");
        token
    }

    async fn error(&self) -> crate::error::Error {
        self.slot.token().await.expect_err("no token")
    }

    fn calls(&self) -> usize {
        self.source.calls()
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.render();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.expect(line).trim().parse().unwrap()
    }

    fn lookups(&self, outcome: &str) -> u64 {
        self.metric(&format!(
            "sidentity_token_lookups_total{{credential=\"id\",outcome=\"{outcome}\"}}"
        ))
    }

    fn fetches(&self, outcome: &str) -> u64 {
        self.metric(&format!(
            "sidentity_token_fetches_total{{credential=\"id\",outcome=\"{outcome}\",source=\"metadata\"}}"
        ))
    }
}

/// Lets the tasks that are ready run, without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// The times at which fetches began.
type Fetches = Arc<Mutex<Vec<Instant>>>;

/// A slot whose source returns what `result` returns, and the times of its fetches.
fn recorded(
    result: impl Fn() -> Result<Token, FetchError> + Send + Sync + 'static,
) -> (Rig, Fetches) {
    let fetches = Fetches::default();
    let seen = Arc::clone(&fetches);
    let source = Scripted::new(move |_| {
        seen.lock().unwrap().push(Instant::now());
        std::future::ready(result())
    });
    (rig(source), fetches)
}

/// The pauses between fetches.
fn pauses(fetches: &Fetches) -> Vec<Duration> {
    let fetches = fetches.lock().unwrap();
    fetches.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_first_requests_share_one_fetch() {
    let rig = rig(Scripted::new(|_| async {
        sleep(secs(1)).await;
        token("T1", 3600)
    }));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let slot = Arc::clone(&rig.slot);
        requests.spawn(async move { slot.token().await.unwrap().reveal().to_owned() });
    }
    let tokens = requests.join_all().await;
    assert!(tokens.len() == 100 && tokens.iter().all(|token| token == "T1"));
    assert_eq!(rig.calls(), 1);
    assert_eq!(rig.lookups("wait"), 100);
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_no_token() {
    let rig = rig(Scripted::new(|call| async move {
        match call {
            1 => token("SECRET", 227),
            _ => unavailable("the server is down"),
        }
    }));
    assert_eq!(rig.slot.status().state, SlotState::Empty);
    rig.get().await;
    assert_eq!(rig.slot.status().state, SlotState::Fresh);
    advance(secs(3)).await;
    rig.get().await;
    assert!(rig.slot.status().fetching);
    settle().await;
    let status = rig.slot.status();
    assert_eq!(status.state, SlotState::NotFresh);
    assert_eq!(status.left, Some(secs(224)));
    assert_eq!(status.failures, 1);
    assert_eq!(status.retry_in, Some(secs(1)));
    assert_eq!(
        status.last_error.as_deref(),
        Some("token: the server is down")
    );
    assert!(status.fetched_at.is_some());
    advance(secs(224)).await;
    assert_eq!(rig.slot.status().state, SlotState::Expired);
    let shown = format!("{:?} {:?} {:?}", rig.slot, rig.cache, rig.cache.statuses());
    assert!(!shown.contains("SECRET"), "{shown}");
}
