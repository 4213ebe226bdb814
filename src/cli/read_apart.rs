//! Reads files on a detached thread: the exit of the process does not wait for it.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// Runs `read` on a thread of its own, and returns its result. A file system that does not respond holds up neither the
/// runtime nor the end of the process.
///
/// # Errors
///
/// Fails if no thread can be started, or if `read` panics.
pub(super) async fn read_apart<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, done) = oneshot::channel();
    let thread = thread::Builder::new().name("reload".to_owned());
    thread.spawn(move || {
        // Fails if the caller no longer waits.
        let _ = sender.send(read());
    })?;
    done.await.map_err(io::Error::other)
}
