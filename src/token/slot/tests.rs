//! The rules of a slot, on paused time and against a source that does what each test says.

use std::sync::Arc;
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
use crate::token::source::TokenSources;
use crate::token::source::scripted::{Scripted, refused, token, unavailable};
use crate::token::{Token, TokenCache};

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

/// Fetch number n brings `Tn`, which lives as long as the n-th of these says; the last counts for all after it.
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

    /// The token, with the promise that no time passes until it is there.
    async fn get_at_once(&self) -> String {
        let start = Instant::now();
        let token = self.get().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "it waited");
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

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_used_without_asking_again() {
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
async fn with_225_seconds_left_a_token_is_served_at_once_and_refreshed_behind() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 2 {
            sleep(secs(2)).await;
        }
        token(&format!("T{call}"), if call == 1 { 227 } else { 3600 })
    }));
    assert_eq!(rig.get().await, "T1");
    advance(Duration::from_millis(1999)).await;
    assert_eq!(rig.get_at_once().await, "T1");
    assert_eq!(rig.calls(), 1, "more than 225 s left");
    // With the jitter that so short a life allows: a tenth of two seconds.
    advance(Duration::from_millis(202)).await;
    assert_eq!(rig.get_at_once().await, "T1");
    settle().await;
    assert_eq!(rig.calls(), 2);
    advance(secs(1)).await;
    assert_eq!(rig.get_at_once().await, "T1", "the fetch is under way");
    advance(secs(1)).await;
    settle().await;
    assert_eq!(rig.get_at_once().await, "T2");
    assert_eq!(rig.calls(), 2);
    assert_eq!(rig.lookups("stale"), 2);
}

#[tokio::test(start_paused = true)]
async fn jitter_makes_a_refresh_later_than_225_seconds_and_never_earlier() {
    let mut stale_at = Vec::new();
    for _ in 0..200 {
        let now = Now::now();
        let token = Token::new("T", now.after(secs(3600)), now).unwrap();
        let margin = (0..=300)
            .rev()
            .find(|left| {
                let mono = now.mono + secs(3600 - left);
                let wall = now.wall + secs(3600 - left);
                token.age(Now { wall, mono }) != crate::token::value::Age::Fresh
            })
            .unwrap();
        stale_at.push(margin);
    }
    assert!(stale_at.iter().all(|left| (205..=225).contains(left)));
    assert!(stale_at.iter().any(|left| *left != stale_at[0]));
}

#[tokio::test(start_paused = true)]
async fn with_less_than_30_seconds_left_a_request_waits_for_the_new_token() {
    let rig = rig(Scripted::new(|call| async move {
        sleep(secs(1)).await;
        token(&format!("T{call}"), if call == 1 { 33 } else { 3600 })
    }));
    assert_eq!(rig.get().await, "T1");
    advance(Duration::from_millis(2000)).await;
    assert_eq!(
        rig.get_at_once().await,
        "T1",
        "31 s left: behind the request"
    );
    advance(Duration::from_millis(500)).await;
    advance(Duration::from_millis(501)).await;
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn where_no_new_token_can_be_had_the_old_one_serves_until_5_seconds_are_left() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            token("T1", 40)
        } else {
            refused("no such account")
        }
    }));
    let start = Now::now();
    assert_eq!(rig.get().await, "T1");
    while Now::now().since(start) < secs(34) {
        advance(secs(1)).await;
        assert_eq!(rig.get_at_once().await, "T1");
        settle().await;
    }
    advance(secs(1)).await;
    let error = rig.error().await;
    assert_eq!(error.kind(), ErrorKind::TokenRefused);
    assert_eq!(error.detail(), "token: no such account");
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
async fn after_failures_the_next_tries_come_after_1_2_4_8_16_30_30_seconds() {
    let start = Instant::now();
    let tries = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&tries);
    let rig = rig(Scripted::new(move |_| {
        seen.lock().unwrap().push(start.elapsed().as_secs());
        async { refused("no") }
    }));
    while start.elapsed() < secs(100) {
        rig.error().await;
        advance(secs(1)).await;
    }
    assert_eq!(*tries.lock().unwrap(), [0, 1, 3, 7, 15, 31, 61, 91]);
}

#[tokio::test(start_paused = true)]
async fn no_failure_is_final() {
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
async fn a_server_that_asks_for_more_patience_gets_it() {
    let rig = rig(Scripted::new(|_| async {
        unavailable("limited").map_err(|mut error| {
            error.retry_after = Some(secs(20));
            error
        })
    }));
    assert_eq!(rig.error().await.wait(), Some(secs(20)));
    advance(secs(19)).await;
    rig.error().await;
    assert_eq!(rig.calls(), 1);
    advance(secs(1)).await;
    rig.error().await;
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_leaves_the_token_in_its_place() {
    let rig = rig(Scripted::new(|call| async move {
        match call {
            1 => token("T1", 227),
            2..=4 => unavailable("503"),
            _ => token("T2", 3600),
        }
    }));
    assert_eq!(rig.get().await, "T1");
    let mut last = String::new();
    for _ in 0..30 {
        advance(secs(1)).await;
        last = rig.get_at_once().await;
        settle().await;
    }
    assert_eq!(last, "T2");
    assert_eq!(rig.lookups("error"), 0);
    assert_eq!((rig.fetches("error"), rig.fetches("ok")), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_asked_for_every_10_seconds_and_no_more() {
    let start = Instant::now();
    let tries = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&tries);
    let rig = rig(Scripted::new(move |_| {
        let now = start.elapsed().as_secs();
        seen.lock().unwrap().push(now);
        async move { token("T1", 227 - now) }
    }));
    for _ in 0..25 {
        assert_eq!(rig.get().await, "T1");
        settle().await;
        advance(secs(1)).await;
    }
    assert_eq!(*tries.lock().unwrap(), [0, 3, 13, 23]);
    assert_eq!((rig.fetches("ok"), rig.fetches("unchanged")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn with_less_than_a_minute_left_the_same_token_is_asked_for_every_2_seconds() {
    let start = Instant::now();
    let tries = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&tries);
    let rig = rig(Scripted::new(move |_| {
        let now = start.elapsed().as_secs();
        seen.lock().unwrap().push(now);
        async move { token("T1", 20 - now) }
    }));
    for _ in 0..14 {
        assert_eq!(rig.get_at_once().await, "T1");
        settle().await;
        advance(secs(1)).await;
    }
    assert_eq!(*tries.lock().unwrap(), [0, 2, 4, 6, 8, 10, 12]);
}

#[tokio::test(start_paused = true)]
async fn new_tokens_that_are_never_fresh_cause_no_storm() {
    let rig = lives(&[100]);
    for _ in 0..60 {
        rig.get().await;
        settle().await;
        advance(secs(1)).await;
    }
    // The first is refreshed at once, like any other stale one; then every 10 s.
    assert_eq!(rig.calls(), 7);
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
async fn the_same_token_with_a_longer_life_is_kept_for_longer() {
    let rig = rig(Scripted::new(|_| async { token("T1", 220) }));
    rig.get().await;
    advance(secs(10)).await;
    rig.get().await;
    settle().await;
    assert_eq!(rig.slot.status().left, Some(secs(220)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_does_not_stop_the_fetch() {
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
async fn a_fetch_that_panics_fails_its_waiters_and_wedges_nothing() {
    let rig = rig(Scripted::new(|call| async move {
        assert!(call > 1, "this test's own panic");
        token("T2", 3600)
    }));
    assert_eq!(rig.error().await.kind(), ErrorKind::TokenUnavailable);
    advance(secs(1)).await;
    assert_eq!(rig.get().await, "T2");
}

#[test]
fn a_fetch_that_dies_with_its_runtime_wedges_nothing() {
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
        rig.slot.refresh_if_stale();
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
async fn an_instance_that_was_frozen_does_not_send_an_expired_token() {
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
async fn a_fetch_that_was_frozen_is_not_waited_for() {
    let rig = rig(Scripted::new(|call| async move {
        if call == 1 {
            std::future::pending::<()>().await;
        }
        token(&format!("T{call}"), 3600)
    }));
    rig.slot.refresh_if_stale();
    settle().await;
    jump_ahead(secs(600));
    assert_eq!(rig.get_at_once().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_frozen_fetch_replaces_nothing_newer() {
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
    rig.slot.refresh_if_stale();
    settle().await;
    jump_ahead(secs(600));
    assert_eq!(rig.get().await, "T2");
    thaw.notify_one();
    settle().await;
    assert_eq!(rig.fetches("ok"), 2, "the first fetch has ended");
    assert_eq!(rig.get().await, "T2");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_frozen_with_its_fetch_gets_the_token_of_the_next() {
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
async fn a_token_that_came_while_the_instance_froze_again_is_not_served() {
    let rig = rig(Scripted::new(|call| async move {
        let result = token(&format!("T{call}"), 3600);
        if call == 1 {
            jump_ahead(secs(3600));
        }
        result
    }));
    assert_eq!(rig.get().await, "T2");
}

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
        requests.spawn(async move { slot.replace(&suspect).await.unwrap().reveal().to_owned() });
    }
    assert!(requests.join_all().await.iter().all(|token| token == "T2"));
    assert_eq!(rig.calls(), 2);
    let other = rig.slot.replace(&suspect).await;
    assert_eq!(other.unwrap().reveal(), "T2", "known without a fetch");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_fetched_anew_at_most_once_a_minute() {
    let rig = rig(Scripted::new(|_| async { token("T1", 3600) }));
    let suspect = rig.slot.token().await.unwrap();
    for second in 0..150 {
        assert!(rig.slot.replace(&suspect).await.is_none());
        let expected = 2 + second / 60;
        assert_eq!(rig.calls(), expected, "second {second}");
        assert_eq!(rig.get_at_once().await, "T1", "403 is not for us to say");
        advance(secs(1)).await;
    }
    assert!(rig.slot.status().suspect);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_renewed_behind_a_request_that_cannot_be_sent_again() {
    let rig = lives(&[3600]);
    let suspect = rig.slot.token().await.unwrap();
    rig.slot.renew(&suspect);
    assert_eq!(rig.calls(), 1, "it does not wait");
    settle().await;
    assert_eq!(rig.get_at_once().await, "T2");
    assert!(!rig.slot.status().suspect);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_asked_for_while_the_server_fails() {
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
    assert!(rig.slot.replace(&suspect).await.is_none());
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_how_it_stands_and_shows_no_token() {
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
    assert_eq!(status.state, SlotState::Stale);
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
