use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lookups::{HUNG, LONG, PERMITS};
use super::{Priority, Resolver, Unresolved};
use crate::destination::Host;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The system's resolver of the tests. Names that begin with `silent` block until `answer` is called.
#[derive(Clone, Default)]
struct System(Arc<(Mutex<Asked>, Condvar)>);

#[derive(Default)]
struct Asked {
    times: HashMap<String, usize>,
    hanging: usize,
    most_hanging: usize,
    answered: bool,
}

impl System {
    fn resolver(&self) -> Resolver {
        let system = self.clone();
        Resolver::with(move |name| system.ask(name))
    }

    fn ask(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        assert!(!name.starts_with("panics"), "this test's own panic");
        let (asked, changed) = &*self.0;
        let mut asked = asked.lock().unwrap();
        *asked.times.entry(name.to_owned()).or_default() += 1;
        changed.notify_all();
        if name.starts_with("silent") && !asked.answered {
            asked.hanging += 1;
            asked.most_hanging = asked.most_hanging.max(asked.hanging);
            asked = changed.wait_while(asked, |asked| !asked.answered).unwrap();
            asked.hanging -= 1;
            if name.starts_with("silent-and-fails") {
                return Err(io::Error::other("try again"));
            }
        }
        if name.starts_with("none") {
            return Ok(Vec::new());
        }
        Ok(vec![
            SocketAddr::from(([192, 0, 2, 1], 0)),
            SocketAddr::from(([192, 0, 2, 2], 0)),
        ])
    }

    /// Answers all silent names, now and later.
    fn answer(&self) {
        let (asked, changed) = &*self.0;
        asked.lock().unwrap().answered = true;
        changed.notify_all();
    }

    fn times(&self, name: &str) -> usize {
        let asked = self.0.0.lock().unwrap();
        asked.times.get(name).copied().unwrap_or_default()
    }

    fn hanging(&self) -> (usize, usize) {
        let asked = self.0.0.lock().unwrap();
        (asked.hanging, asked.most_hanging)
    }

    async fn hang(&self, count: usize) {
        let wait = async {
            while self.hanging().0 < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, wait).await.expect("lookups that hang");
    }
}

/// Threads that hang would block the shutdown of the runtime.
impl Drop for System {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 2 {
            self.answer();
        }
    }
}

async fn resolve(
    resolver: &Resolver,
    name: &str,
    priority: Priority,
    limit: Duration,
) -> Result<Vec<SocketAddr>, Unresolved> {
    let host = Host::parse(name).unwrap();
    resolver.resolve(&host, 443, priority, limit).await
}

/// Starts callers of silent names, each with its own name and a wait of `limit`.
fn flood(
    resolver: &Resolver,
    count: usize,
    priority: Priority,
    limit: Duration,
) -> JoinSet<Result<Vec<SocketAddr>, Unresolved>> {
    let mut callers = JoinSet::new();
    for n in 0..count {
        let resolver = resolver.clone();
        callers.spawn(async move {
            resolve(&resolver, &format!("silent-{n}.test"), priority, limit).await
        });
    }
    callers
}

/// Waits until all callers of the flood are queued or started.
async fn flooded(resolver: &Resolver, system: &System, count: usize) {
    system.hang(count.min(PERMITS)).await;
    let wait = async {
        while resolver.0.lock().len() < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, wait).await.expect("callers");
}

#[tokio::test]
async fn addresses_keep_their_order() {
    let system = System::default();
    let found = resolve(&system.resolver(), "a.test", Priority::Normal, TIMEOUT).await;
    let expected = ["192.0.2.1:443", "192.0.2.2:443"].map(|text| text.parse().unwrap());
    assert_eq!(found.unwrap(), expected);
    let literal = resolve(&system.resolver(), "[::1]", Priority::Normal, TIMEOUT).await;
    assert_eq!(literal.unwrap(), ["[::1]:443".parse().unwrap()]);
}

#[tokio::test]
async fn a_name_without_an_address_or_a_panic_of_the_resolver_is_an_error() {
    let resolver = System::default().resolver();
    let error = resolve(&resolver, "none.test", Priority::Normal, TIMEOUT).await;
    assert!(matches!(error, Err(Unresolved::Failed(_))), "{error:?}");
    let error = resolve(&resolver, "panics.test", Priority::Normal, TIMEOUT).await;
    assert!(matches!(error, Err(Unresolved::Aborted)), "{error:?}");
    let found = resolve(&resolver, "a.test", Priority::Normal, TIMEOUT).await;
    assert!(found.is_ok());
}

#[tokio::test]
async fn a_hundred_callers_of_one_name_share_one_lookup() {
    let system = System::default();
    let resolver = system.resolver();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let resolver = resolver.clone();
        callers.spawn(
            async move { resolve(&resolver, "silent.test", Priority::Normal, TIMEOUT).await },
        );
    }
    system.hang(1).await;
    system.answer();
    let found = callers.join_all().await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(system.times("silent.test"), 1);
}

#[tokio::test]
async fn a_caller_that_retries_joins_the_lookup_in_flight() {
    let system = System::default();
    let resolver = system.resolver();
    for _ in 0..3 {
        let short = Duration::from_millis(50);
        let error = resolve(&resolver, "silent.test", Priority::Normal, short).await;
        assert!(matches!(error, Err(Unresolved::TimedOut(_))), "{error:?}");
    }
    assert_eq!(system.times("silent.test"), 1);
    let again = resolve(&resolver, "silent.test", Priority::Normal, TIMEOUT);
    let answer = async {
        tokio::task::yield_now().await;
        system.answer();
    };
    assert!(tokio::join!(again, answer).0.is_ok());
    assert_eq!(system.times("silent.test"), 1);
}

#[tokio::test]
async fn a_lookup_that_hung_before_a_caller_came_does_not_fail_the_caller() {
    let system = System::default();
    let resolver = system.resolver();
    let error = resolve(
        &resolver,
        "silent-and-fails.test",
        Priority::Normal,
        LONG + LONG / 10,
    );
    assert!(error.await.is_err());
    let again = resolve(
        &resolver,
        "silent-and-fails.test",
        Priority::Normal,
        TIMEOUT,
    );
    let answer = async {
        tokio::task::yield_now().await;
        system.answer();
    };
    assert!(tokio::join!(again, answer).0.is_ok());
    assert_eq!(system.times("silent-and-fails.test"), 2);
}

#[tokio::test]
async fn a_new_host_resolves_while_640_lookups_hang() {
    let system = System::default();
    let resolver = system.resolver();
    let mut silent = flood(&resolver, 640, Priority::Normal, TIMEOUT);
    flooded(&resolver, &system, 640).await;
    for n in 0..3 {
        let start = Instant::now();
        let name = format!("new-{n}.test");
        let found = resolve(&resolver, &name, Priority::Normal, TIMEOUT).await;
        assert!(found.is_ok(), "{name}: {found:?}");
        assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    }
    while let Some(ended) = silent.join_next().await {
        assert!(ended.unwrap().is_err());
    }
    let start = Instant::now();
    let found = resolve(&resolver, "after.test", Priority::Normal, TIMEOUT).await;
    assert!(found.is_ok());
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    assert!(
        system.hanging().1 <= PERMITS + HUNG,
        "{:?}",
        system.hanging()
    );
}

#[tokio::test]
async fn half_of_the_permits_are_reserved_for_destinations_that_get_a_token() {
    for (many, one) in [
        (Priority::Normal, Priority::High),
        (Priority::High, Priority::Normal),
    ] {
        let system = System::default();
        let resolver = system.resolver();
        let _silent = flood(&resolver, 200, many, TIMEOUT);
        flooded(&resolver, &system, 200).await;
        let start = Instant::now();
        assert!(resolve(&resolver, "token.test", one, TIMEOUT).await.is_ok());
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_queued_lookup_starts_when_a_destination_with_a_token_joins_it() {
    for joins in [true, false] {
        let system = System::default();
        let resolver = system.resolver();
        // The newest starts first, so a lookup that was queued before the flood starts last.
        let mut callers = flood(&resolver, PERMITS, Priority::Normal, TIMEOUT);
        flooded(&resolver, &system, PERMITS).await;
        let first = {
            let resolver = resolver.clone();
            tokio::spawn(async move {
                resolve(&resolver, "token.test", Priority::Normal, TIMEOUT).await
            })
        };
        while resolver.0.lock().len() == PERMITS {
            tokio::task::yield_now().await;
        }
        assert_eq!(system.times("token.test"), 0);
        let start = Instant::now();
        if joins {
            let found = resolve(&resolver, "token.test", Priority::High, TIMEOUT).await;
            assert!(found.is_ok());
        } else {
            resolver.promote(&Host::parse("token.test").unwrap());
        }
        assert!(first.await.unwrap().is_ok());
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
        assert_eq!(system.times("token.test"), 1);
        callers.abort_all();
    }
}

#[tokio::test]
async fn callers_that_cancel_release_their_permits_and_queue_entries() {
    let system = System::default();
    let resolver = system.resolver();
    let mut silent = flood(&resolver, 640, Priority::Normal, TIMEOUT);
    flooded(&resolver, &system, 640).await;
    silent.shutdown().await;
    // Some were started by callers that have left.
    let known = resolver.0.lock().len();
    assert!(
        known <= 2 * PERMITS,
        "{known} names, and only what hangs should be known"
    );
    let start = Instant::now();
    let found = resolve(&resolver, "new.test", Priority::Normal, TIMEOUT).await;
    assert!(found.is_ok());
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    assert!(system.hanging().1 <= 2 * PERMITS, "{:?}", system.hanging());
}

#[tokio::test]
async fn hanging_threads_are_bounded_and_the_resolver_recovers() {
    let system = System::default();
    let resolver = system.resolver();
    // Callers come and go until no permit is returned.
    for n in 0..PERMITS + HUNG + 8 {
        let name = format!("silent-{n}.test");
        let host = Host::parse(&name).unwrap();
        let caller = resolver.resolve(&host, 443, Priority::Normal, TIMEOUT);
        let mut caller = pin!(caller);
        let polled = poll_fn(|cx| Poll::Ready(caller.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    system.hang(PERMITS + HUNG).await;
    assert_eq!(system.hanging().1, PERMITS + HUNG);
    let short = Duration::from_millis(50);
    let error = resolve(&resolver, "new.test", Priority::Normal, short).await;
    assert!(matches!(error, Err(Unresolved::NoPermit(_))), "{error:?}");
    let found = resolve(&resolver, "token.test", Priority::High, TIMEOUT).await;
    assert!(found.is_ok());
    let later = resolve(&resolver, "new.test", Priority::Normal, TIMEOUT);
    let answer = async {
        tokio::task::yield_now().await;
        system.answer();
    };
    assert!(tokio::join!(later, answer).0.is_ok());
}

#[test]
fn lookups_that_end_with_their_runtime_block_no_others() {
    let system = System::default();
    let resolver = system.resolver();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap()
    };
    let first = runtime();
    first.block_on(async {
        let _silent = flood(&resolver, 100, Priority::Normal, TIMEOUT);
        system.hang(1).await;
    });
    first.shutdown_background();
    system.answer();
    runtime().block_on(async {
        let found = resolve(&resolver, "new.test", Priority::Normal, TIMEOUT).await;
        assert!(found.is_ok());
    });
}
