//! The rules of a slot on random schedules of requests, failures, rejections and suspensions.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The time limit of a fetch that is still current: the source's limit and a margin.
const LIMIT: Duration = secs(10);

/// What one fetch returns.
#[derive(Clone, Debug)]
enum FetchScript {
    Fails {
        delay: u64,
    },
    New {
        delay: u64,
        life: u64,
    },
    /// The token of an earlier fetch, if there is one that has not expired.
    Same {
        delay: u64,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Get,
    Refresh,
    Reject,
    Suspend(u64),
}

/// The source's record of its fetches and tokens.
#[derive(Debug, Default)]
struct Record {
    started: Vec<Now>,
    in_flight: HashMap<usize, Now>,
    /// The expiry of each token.
    expiries: HashMap<String, Now>,
    last: Option<String>,
}

fn fetch_script() -> impl Strategy<Value = FetchScript> {
    let (delay, life) = (0..8u64, 7..4000u64);
    prop_oneof![
        delay.clone().prop_map(|delay| FetchScript::Fails { delay }),
        (delay.clone(), life).prop_map(|(delay, life)| FetchScript::New { delay, life }),
        delay.prop_map(|delay| FetchScript::Same { delay }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..300u64).prop_map(Step::Advance),
        3 => (1..5u64).prop_map(Step::Advance),
        5 => Just(Step::Get),
        2 => Just(Step::Refresh),
        2 => Just(Step::Reject),
        1 => (1..4000u64).prop_map(Step::Suspend),
    ]
}

fn later(now: Now, by: Duration) -> Now {
    Now {
        wall: now.wall + by,
        mono: now.mono + by,
    }
}

/// A source that follows the scripts, one per fetch, and asserts that at most one current fetch is in flight.
fn source(scripts: Vec<FetchScript>, record: &Arc<Mutex<Record>>) -> Scripted {
    let record = Arc::clone(record);
    Scripted::new(move |call| {
        let script = scripts[(call - 1) % scripts.len()].clone();
        let record = Arc::clone(&record);
        async move {
            let now = Now::now();
            {
                let mut record = record.lock().unwrap();
                let current = |started: &&Now| now.since(**started) <= LIMIT;
                assert_eq!(record.in_flight.values().find(current).map(|_| ()), None);
                record.started.push(now);
                record.in_flight.insert(call, now);
            }
            let (FetchScript::Fails { delay }
            | FetchScript::New { delay, .. }
            | FetchScript::Same { delay }) = script;
            sleep(secs(delay)).await;
            let now = Now::now();
            let mut record = record.lock().unwrap();
            record.in_flight.remove(&call);
            let (text, expiry) = match script {
                FetchScript::Fails { .. } => return unavailable("down"),
                FetchScript::New { life, .. } => (format!("T{call}"), later(now, secs(life))),
                FetchScript::Same { .. } => {
                    let last = record.last.clone();
                    match last.and_then(|text| Some((text.clone(), *record.expiries.get(&text)?))) {
                        Some((text, expiry)) if left(expiry, now) > secs(6) => (text, expiry),
                        _ => return unavailable("no token"),
                    }
                }
            };
            record.expiries.insert(text.clone(), expiry);
            record.last = Some(text.clone());
            let life = left(expiry, now);
            let token = Token::new(&text, now.after(life), now).unwrap();
            Ok(token)
        }
    })
}

/// The remaining time by the clock that has less left.
fn left(expiry: Now, now: Now) -> Duration {
    let wall = expiry.wall.duration_since(now.wall).unwrap_or_default();
    wall.min(expiry.mono.saturating_duration_since(now.mono))
}

async fn run(scripts: Vec<FetchScript>, steps: Vec<Step>) {
    let record = Arc::new(Mutex::new(Record::default()));
    let rig = rig(source(scripts, &record));
    let start = Now::now();
    let (mut suspensions, mut rejections) = (0, 0);
    let mut served: Option<Arc<Token>> = None;
    for step in steps {
        match step {
            Step::Advance(by) => advance(secs(by)).await,
            Step::Get => {
                if let Ok(token) = rig.slot.token().await {
                    let expiry = record.lock().unwrap().expiries[token.reveal()];
                    assert!(left(expiry, Now::now()) > secs(4), "an expired token");
                    served = Some(token);
                }
            }
            Step::Refresh => rig.slot.refresh_unless_fresh(),
            Step::Reject => {
                if let Some(token) = &served {
                    rejections += 1;
                    rig.slot.start_replacement(token);
                }
            }
            Step::Suspend(by) => {
                suspensions += 1;
                jump_ahead(secs(by));
            }
        }
        settle().await;
    }
    // Backoff and pauses are at least a second. A rejection may add a fetch, and a suspension ends what prevents one.
    let elapsed = Now::now().mono.duration_since(start.mono).as_secs();
    let bound = 3 + elapsed + rejections + 3 * suspensions;
    let fetches = record.lock().unwrap().started.len() as u64;
    assert!(
        fetches <= bound,
        "{fetches} fetches, at most {bound} expected"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tokens_are_never_expired_and_fetches_are_bounded(
        scripts in vec(fetch_script(), 1..12),
        steps in vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(scripts, steps));
    }
}
