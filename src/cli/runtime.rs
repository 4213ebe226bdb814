//! The tokio runtime of a command.

use std::pin::Pin;

use tokio::runtime::{Builder, Runtime};

use super::exit::Exit;
use crate::dns;

/// The blocking threads: those that DNS lookups may occupy, and 32 for file reads, which must not wait for DNS. The
/// metadata client's resolver looks up one name, so it blocks one thread.
const BLOCKING_THREADS: usize = dns::MAX_THREADS + 32;

/// Starts a runtime with this number of worker threads. With one core, a second thread adds only context switches.
pub(super) fn runtime(workers: usize) -> Result<Runtime, Exit> {
    let mut builder = match workers {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Exit::failed(format!("cannot start threads: {error}")))
}

/// Runs a future to its end. Boxed, because tokio would contain its code once for each kind of runtime.
pub(super) fn block_on<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    let future: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(future);
    runtime.block_on(future)
}
