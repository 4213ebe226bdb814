//! The threads that serve connections.
//!
//! Each worker is a thread with a runtime of its own. An app's connection stays on one worker, with its requests and
//! their connections to upstreams, so a request never wakes another core. Tokens, limits and metrics are shared.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{EnterGuard, Handle};

/// The workers of the process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    first: Arc<Worker>,
    others: Arc<[Arc<Worker>]>,
}

#[derive(Debug)]
struct Worker {
    index: usize,
    runtime: Handle,
    /// The number of clients' connections that it serves.
    connections: AtomicUsize,
}

/// The worker of a connection. The connection counts there until this is dropped.
#[derive(Debug)]
pub(crate) struct AssignedWorker(Arc<Worker>);

/// A value for each worker.
#[derive(Debug)]
pub(crate) struct PerWorker<T> {
    first: T,
    others: Box<[T]>,
}

thread_local! {
    /// The workers of the process, and the index of this thread among them.
    static CURRENT: OnceCell<(Workers, usize)> = const { OnceCell::new() };
}

// === impl Workers ===

impl Workers {
    /// Creates workers from their runtimes. Each of their threads must call [`enter`](Self::enter).
    pub(crate) fn new(first: &Handle, others: impl Iterator<Item = Handle>) -> Self {
        Self {
            first: Worker::new(0, first.clone()),
            others: others
                .enumerate()
                .map(|(before, runtime)| Worker::new(before + 1, runtime))
                .collect(),
        }
    }

    /// Returns the workers of this thread. A thread that is not one of several workers has its runtime alone.
    pub(crate) fn current() -> Self {
        CURRENT.with(|current| match current.get() {
            Some((workers, _)) => workers.clone(),
            None => Self::new(&Handle::current(), std::iter::empty()),
        })
    }

    /// Makes this thread the worker with this index. A thread stays the worker that it became first.
    pub(crate) fn enter(&self, index: usize) {
        CURRENT.with(|current| {
            let _ = current.set((self.clone(), index));
        });
    }

    /// Returns the worker with the fewest connections. Among equals it is the first, which also accepts.
    pub(crate) fn least_loaded(&self) -> AssignedWorker {
        let least = self.others.iter().fold(&self.first, |least, other| {
            if other.connections() < least.connections() {
                other
            } else {
                least
            }
        });
        AssignedWorker::new(least)
    }
}

/// Returns the number of workers.
fn count() -> usize {
    CURRENT.with(|current| match current.get() {
        Some((workers, _)) => 1 + workers.others.len(),
        None => 1,
    })
}

/// Returns the index of this thread among the workers. All threads that are none have that of the first.
fn index() -> usize {
    CURRENT.with(|current| current.get().map_or(0, |(_, index)| *index))
}

// === impl Worker ===

impl Worker {
    fn new(index: usize, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            index,
            runtime,
            connections: AtomicUsize::new(0),
        })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

// === impl AssignedWorker ===

impl AssignedWorker {
    fn new(worker: &Arc<Worker>) -> Self {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Self(worker.clone())
    }

    /// Returns whether it is this thread's worker.
    pub(crate) fn is_current(&self) -> bool {
        self.0.index == index()
    }

    /// Makes its runtime the current one of this thread, for new tasks and sockets.
    pub(crate) fn enter_runtime(&self) -> EnterGuard<'_> {
        self.0.runtime.enter()
    }
}

impl Drop for AssignedWorker {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl PerWorker ===

impl<T: Default> PerWorker<T> {
    /// Creates a value for each worker of this thread's process.
    pub(crate) fn new() -> Self {
        Self {
            first: T::default(),
            others: (1..count()).map(|_| T::default()).collect(),
        }
    }
}

impl<T> PerWorker<T> {
    /// Returns the value of this thread's worker. All other threads share the first worker's.
    pub(crate) fn current(&self) -> &T {
        index()
            .checked_sub(1)
            .and_then(|index| self.others.get(index))
            .unwrap_or(&self.first)
    }

    /// Returns the values of all workers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::lock::lock;

    fn runtimes<const N: usize>() -> [Runtime; N] {
        std::array::from_fn(|_| Builder::new_current_thread().build().unwrap())
    }

    #[test]
    fn connections_are_spread_evenly_and_the_first_worker_gets_the_odd_one() {
        let [first, second, third] = runtimes();
        let others = [&second, &third].map(|runtime| runtime.handle().clone());
        let workers = Workers::new(first.handle(), others.into_iter());
        let assigned: Vec<_> = (0..7).map(|_| workers.least_loaded()).collect();
        let indices: Vec<_> = assigned.iter().map(|assigned| assigned.0.index).collect();
        assert_eq!(indices, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(workers.first.connections(), 3);
        drop(assigned);
        assert_eq!(workers.first.connections(), 0);
        let one_at_a_time = (0..3).map(|_| workers.least_loaded().0.index);
        assert_eq!(one_at_a_time.collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn each_worker_has_a_value_of_its_own_and_other_threads_share_the_first() {
        let [first, second] = runtimes();
        let workers = Workers::new(first.handle(), std::iter::once(second.handle().clone()));
        let values = thread::scope(|scope| {
            let created = scope.spawn(|| {
                workers.enter(0);
                let values = PerWorker::<Mutex<Vec<&str>>>::new();
                lock(values.current()).push("first");
                values
            });
            created.join().unwrap()
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                workers.enter(1);
                lock(values.current()).push("second");
            });
            scope.spawn(|| lock(values.current()).push("none"));
        });
        let all: Vec<_> = values.all().map(|value| lock(value).clone()).collect();
        assert_eq!(all, [vec!["first", "none"], vec!["second"]]);
    }
}
