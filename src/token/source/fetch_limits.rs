//! The limits of the fetches from one server: their number, their priority, and their time.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::token::priority::FetchPriority;
use crate::token::retry::{Attempt, AttemptError, AttemptFuture, RetryError, retry};

/// Longer than any useful wait, and short enough for clock arithmetic.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The number of concurrent fetches. The server limits the rate of its clients.
const MAX_CONCURRENT: usize = 4;
/// The number of concurrent fetches for audiences that requests name. The rest is reserved for access tokens, routes
/// and facts.
const MAX_CONCURRENT_NORMAL: usize = MAX_CONCURRENT / 2;
/// The number of queued and running fetches for audiences that requests name. Further ones fail at once.
const NORMAL_QUEUE: usize = 1_024;

/// Runs the fetches of one server within its limits.
///
/// A fetch must not wait for another fetch of the same limits. Both would hold a permit, and could deadlock.
#[derive(Debug)]
pub(super) struct FetchLimits {
    timeout: Duration,
    permits: Semaphore,
    normal_permits: Semaphore,
    normal_queue: Semaphore,
}

/// The permit to fetch.
#[derive(Debug)]
struct Permit<'a> {
    _any: SemaphorePermit<'a>,
    _normal: Option<SemaphorePermit<'a>>,
}

// === impl FetchLimits ===

impl FetchLimits {
    /// Creates limits. `timeout` limits one fetch with all its attempts (`--token-timeout`).
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout: timeout.min(LONGEST_TIMEOUT),
            permits: Semaphore::new(MAX_CONCURRENT),
            normal_permits: Semaphore::new(MAX_CONCURRENT_NORMAL),
            normal_queue: Semaphore::new(NORMAL_QUEUE),
        }
    }

    /// Returns the time limit of one fetch.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for a permit, then [repeats](retry) `attempt`.
    pub(super) async fn fetch<'f, T, F>(
        &self,
        priority: &FetchPriority,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<T, RetryError>
    where
        T: Send + 'f,
        F: Future<Output = Result<T, AttemptError>> + Send + 'f,
    {
        self.fetch_within(self.timeout, priority, attempt).await
    }

    /// Like [`fetch`](Self::fetch), with at most this time.
    pub(super) async fn fetch_within<'f, T, F>(
        &self,
        time: Duration,
        priority: &FetchPriority,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, RetryError>
    where
        T: Send + 'f,
        F: Future<Output = Result<T, AttemptError>> + Send + 'f,
    {
        let mut boxed = || Box::pin(attempt()) as AttemptFuture<'f, T>;
        self.run(time, priority, &mut boxed).await
    }

    async fn run<T: Send>(
        &self,
        time: Duration,
        priority: &FetchPriority,
        attempt: Attempt<'_, '_, T>,
    ) -> Result<T, RetryError> {
        let end = Instant::now() + time.min(self.timeout);
        let queued = (!priority.is_high()).then(|| self.normal_queue.try_acquire());
        if matches!(queued, Some(Err(_))) {
            let error = AttemptError::timed_out("too many tokens are requested at once");
            return Err(RetryError::before(error));
        }
        let Ok(Some(_permit)) = timeout_at(end, self.permit(priority)).await else {
            let error = AttemptError::timed_out("other fetches took the whole time");
            return Err(RetryError::before(error));
        };
        retry(end, attempt).await
    }

    /// Waits for a permit. A caller of normal priority first needs one of [`MAX_CONCURRENT_NORMAL`] normal permits, so
    /// at most that many compete with callers of high priority.
    ///
    /// Never returns `None`, because the semaphores are not closed.
    async fn permit(&self, priority: &FetchPriority) -> Option<Permit<'_>> {
        let normal = tokio::select! {
            biased;
            () = priority.raised() => None,
            permit = self.normal_permits.acquire() => Some(permit.ok()?),
        };
        Some(Permit {
            _any: self.permits.acquire().await.ok()?,
            _normal: normal,
        })
    }
}
