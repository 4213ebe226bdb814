//! The fetch in flight. It runs in its own task, so it outlives the request that started it, and always reports a
//! result.

use std::sync::Arc;

use tokio::sync::watch;

use super::Slot;
use crate::token::clock::Now;
use crate::token::fetch_error::FetchError;
use crate::token::value::Token;

/// A fetch that other requests can wait for.
#[derive(Debug)]
pub(super) struct InFlightFetch {
    pub(super) id: u64,
    pub(super) started: Now,
    waiter: FetchWaiter,
}

/// Waits for the end of a fetch. The slot has the result by then.
#[derive(Clone, Debug)]
pub(in crate::token) struct FetchWaiter(watch::Receiver<()>);

/// The next step towards a token: join a fetch, or start one. It is executed without the state's lock, because a
/// runtime that shuts down drops a new task at once, and the drop takes the lock.
#[derive(Debug)]
pub(super) enum FetchPlan {
    Join(FetchWaiter),
    Start {
        id: u64,
        started: Now,
        done: watch::Sender<()>,
        waiter: FetchWaiter,
    },
}

/// The task of a fetch. Its drop reports to the slot: the result, or an error after a panic or at the runtime's end.
struct FetchTask {
    slot: Arc<Slot>,
    id: u64,
    started: Now,
    result: Option<Result<Token, FetchError>>,
    /// Its drop ends the wait of all waiters. `Drop::drop` runs before it, so the slot then has the result.
    _done: watch::Sender<()>,
}

// === impl InFlightFetch ===

impl InFlightFetch {
    /// Returns the fetch and the plan that starts it.
    pub(super) fn new(id: u64, started: Now) -> (Self, FetchPlan) {
        let (done, waiter) = watch::channel(());
        let waiter = FetchWaiter(waiter);
        let fetch = Self {
            id,
            started,
            waiter: waiter.clone(),
        };
        let plan = FetchPlan::Start {
            id,
            started,
            done,
            waiter,
        };
        (fetch, plan)
    }

    /// Returns the plan that waits for this fetch.
    pub(super) fn join(&self) -> FetchPlan {
        FetchPlan::Join(self.waiter.clone())
    }
}

// === impl FetchWaiter ===

impl FetchWaiter {
    pub(in crate::token) async fn wait(mut self) {
        // Nothing is sent. `changed` returns when the sender is dropped.
        let _ = self.0.changed().await;
    }
}

// === impl FetchPlan ===

impl FetchPlan {
    /// Spawns the fetch, unless the plan is to join one.
    pub(super) fn execute(self, slot: &Arc<Slot>) -> FetchWaiter {
        let (id, started, done, waiter) = match self {
            Self::Join(waiter) => return waiter,
            Self::Start {
                id,
                started,
                done,
                waiter,
            } => (id, started, done, waiter),
        };
        let task = FetchTask {
            slot: Arc::clone(slot),
            id,
            started,
            result: None,
            _done: done,
        };
        tokio::spawn(task.run());
        waiter
    }
}

// === impl FetchTask ===

impl FetchTask {
    async fn run(mut self) {
        let Slot {
            key,
            priority,
            shared,
            ..
        } = &*self.slot;
        self.result = Some(shared.sources.fetch(key, priority).await);
    }
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| Err(FetchError::aborted()));
        self.slot.fetched(self.id, self.started, result);
    }
}
