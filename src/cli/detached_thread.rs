//! Work on a detached thread: neither the runtime nor the exit of the process waits for it.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// Runs `work` on a thread of its own, and returns its result. For reading files: a file system that does not respond
/// holds up neither the runtime nor the end of the process.
///
/// # Errors
///
/// Fails if no thread can be started, or if `work` panics.
pub(super) async fn on_detached_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, done) = oneshot::channel();
    let thread = thread::Builder::new().name("read-files".to_owned());
    thread.spawn(move || {
        // Fails if the caller no longer waits.
        let _ = sender.send(work());
    })?;
    done.await.map_err(io::Error::other)
}
