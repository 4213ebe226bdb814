//! The runtimes of a command.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, Builder};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use crate::dns;
use crate::workers::Workers;

/// The blocking threads: those that DNS lookups may occupy, and 32 for file reads, which must not wait for DNS. The
/// metadata client's resolver looks up one name, so it blocks one thread.
const BLOCKING_THREADS: usize = dns::MAX_THREADS + 32;

/// The time limit for the end of the workers' threads.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The runtimes of the process: one on the main thread, and one on a thread of its own for each further worker.
pub(super) struct Runtime {
    main: runtime::Runtime,
    stop: CancellationToken,
    /// Closed when all workers' threads have ended.
    ended: mpsc::Receiver<Infallible>,
}

/// Starts the runtimes of this number of workers. The calling thread becomes the first worker.
pub(super) fn runtime(workers: usize) -> Result<Runtime, Exit> {
    start(workers).map_err(|error| Exit::failed(format!("cannot start threads: {error}")))
}

fn start(workers: usize) -> io::Result<Runtime> {
    let main = single_threaded()?;
    let others: Vec<_> = (1..workers)
        .map(|_| single_threaded())
        .collect::<Result<_, _>>()?;
    let handles = others.iter().map(|runtime| runtime.handle().clone());
    let workers = Workers::new(main.handle(), handles);
    workers.enter(0);
    let stop = CancellationToken::new();
    let (running, ended) = mpsc::channel();
    for (runtime, index) in others.into_iter().zip(1..) {
        let (workers, stop, running) = (workers.clone(), stop.clone(), running.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                workers.enter(index);
                runtime.block_on(stop.cancelled());
                runtime.shutdown_background();
                drop(running);
            })?;
    }
    Ok(Runtime { main, stop, ended })
}

fn single_threaded() -> io::Result<runtime::Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

// === impl Runtime ===

impl Runtime {
    /// Runs a future to its end on the main thread. Boxed, because tokio's scheduler is compiled for each type of future.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let future: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(future);
        self.main.block_on(future)
    }

    /// Cancels the remaining tasks of all workers.
    pub(super) fn shutdown(self) {
        self.stop.cancel();
        self.main.shutdown_background();
        // An error: all have ended, or one has not within the time.
        let _ = self.ended.recv_timeout(SHUTDOWN_TIMEOUT);
    }
}
