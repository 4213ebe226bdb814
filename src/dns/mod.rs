//! Resolves names to addresses with the system's resolver.
//!
//! `getaddrinfo` blocks a thread and cannot be cancelled. If a name server does not answer, it returns after tens of
//! seconds. [`Resolver`] therefore counts callers, permits and blocked threads separately. All callers of a name share
//! one lookup. A lookup returns its permit when it is slow or its callers have left, even if its thread still hangs.
//! Half of the permits and threads are reserved for [`Priority::High`]. The newest queued name starts first, so that
//! names without an answer do not delay others.

mod lookups;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::lookups::{LONG, Lookups, Phase, Started};
use crate::destination::Host;
use crate::lock::lock;

pub(crate) use self::lookups::MAX_THREADS;

/// Asks the system for the addresses of a name. Blocks.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The priority of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// For a destination that any caller can name.
    Normal,
    /// For a destination that gets a token, or a configured route.
    High,
}

/// The reason that a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unresolved {
    /// The system's resolver did not answer in time.
    #[error("the resolver did not answer in {0:?}")]
    TimedOut(Duration),
    /// Other lookups held all permits until the time limit.
    #[error("all lookup permits were held by unanswered lookups for {0:?}")]
    NoPermit(Duration),
    /// The resolver answered with an error, or with no address.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The lookup ended without an answer: it panicked, or the runtime is shutting down.
    #[error("the lookup was aborted")]
    Aborted,
}

type LookupResult = Result<Arc<[SocketAddr]>, Unresolved>;

/// Asks the system's resolver for every connection, without a cache: the system may have one. Clones share their
/// limits.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<ResolverInner>);

struct ResolverInner {
    ask: Box<Ask>,
    lookups: Mutex<Lookups>,
}

/// One caller of a lookup. It leaves the lookup when it is dropped.
struct LookupWaiter<'a> {
    shared: &'a Arc<ResolverInner>,
    name: Arc<str>,
    id: u64,
    phase: watch::Receiver<Phase>,
}

/// A lookup for a thread. It reports its outcome when it is dropped, even if it did not run.
struct Job {
    shared: Arc<ResolverInner>,
    started: Started,
    outcome: Option<LookupResult>,
}

// === impl Resolver ===

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// Creates a resolver with its own limits. It uses at most [`MAX_THREADS`] threads of the runtime's blocking pool.
    pub(crate) fn new() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn with(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ResolverInner {
            ask: Box::new(ask),
            lookups: Mutex::default(),
        }))
    }

    /// Returns the addresses of `host` in the resolver's order. There is at least one.
    ///
    /// # Errors
    ///
    /// Fails if there is no address, or none within `limit`.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(crate) async fn resolve(
        &self,
        host: &Host,
        port: u16,
        priority: Priority,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => name,
        };
        let end = Instant::now() + limit;
        let mut caller = self.0.join(name, priority);
        // The failure of a lookup that hung before this call may be outdated, so the caller asks once more.
        let late = caller.phase.borrow().has_run_for(LONG);
        let mut outcome = timeout_at(end, caller.outcome()).await;
        if late && matches!(outcome, Ok(Err(_))) {
            caller = self.0.join(name, priority);
            outcome = timeout_at(end, caller.outcome()).await;
        }
        match outcome {
            Ok(Ok(addresses)) => Ok(addresses
                .iter()
                .map(|address| {
                    let mut address = *address;
                    address.set_port(port);
                    address
                })
                .collect()),
            Ok(Err(error)) => Err(error),
            Err(_) if matches!(*caller.phase.borrow(), Phase::Queued) => {
                Err(Unresolved::NoPermit(limit))
            }
            Err(_) => Err(Unresolved::TimedOut(limit)),
        }
    }

    /// Gives a queued lookup of `host` a permit of [`Priority::High`], if there is such a lookup.
    pub(crate) fn promote(&self, host: &Host) {
        if let Host::Name(name) = host {
            self.0.update(|lookups| lookups.promote(name));
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

// === impl ResolverInner ===

impl ResolverInner {
    fn join(self: &Arc<Self>, name: &Arc<str>, priority: Priority) -> LookupWaiter<'_> {
        let (id, phase) = self.update(|lookups| lookups.join(name, priority));
        LookupWaiter {
            shared: self,
            name: Arc::clone(name),
            id,
            phase,
        }
    }

    /// Changes the state, then starts the lookups that may start.
    fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut Lookups) -> T) -> T {
        let mut lookups = self.lock();
        let result = change(&mut lookups);
        let started = lookups.start(Instant::now());
        // A runtime that is shutting down drops a job at once. The job takes the lock.
        drop(lookups);
        for started in started {
            let job = Job {
                shared: Arc::clone(self),
                started,
                outcome: None,
            };
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn_blocking(move || job.run());
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Lookups> {
        lock(&self.lookups)
    }
}

// === impl LookupWaiter ===

impl LookupWaiter<'_> {
    async fn outcome(&mut self) -> LookupResult {
        loop {
            let phase = self.phase.borrow_and_update().clone();
            let changed = match phase {
                Phase::Done(outcome) => return outcome,
                Phase::Queued => self.phase.changed().await,
                Phase::Running { permit_until, .. } => tokio::select! {
                    changed = self.phase.changed() => changed,
                    () = sleep_until(permit_until) => {
                        self.shared.update(|lookups| lookups.release(&self.name, self.id));
                        self.phase.changed().await
                    }
                },
            };
            if changed.is_err() {
                return Err(Unresolved::Aborted);
            }
        }
    }
}

impl Drop for LookupWaiter<'_> {
    fn drop(&mut self) {
        self.shared
            .update(|lookups| lookups.leave(&self.name, self.id));
    }
}

// === impl Job ===

impl Job {
    fn run(mut self) {
        self.outcome = Some(match (self.shared.ask)(&self.started.name) {
            Ok(found) if found.is_empty() => {
                Err(Unresolved::Failed("the name has no address".into()))
            }
            Ok(found) => Ok(found.into()),
            Err(error) => Err(Unresolved::Failed(error.to_string().into())),
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let Started { name, id } = &self.started;
        match self.outcome.take() {
            Some(outcome) => self
                .shared
                .update(|lookups| lookups.finish(name, *id, outcome)),
            // The job panicked, or the runtime ended. Another start could end in the same way.
            None => self
                .shared
                .lock()
                .finish(name, *id, Err(Unresolved::Aborted)),
        }
    }
}

#[cfg(test)]
mod tests;
