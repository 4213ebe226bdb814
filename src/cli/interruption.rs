//! Waits for a signal.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::children;

/// Returns a future that completes at SIGINT or SIGTERM, which are caught from the call on.
pub(super) fn interruption() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = signal(SignalKind::child())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => return,
                _ = terminate.recv() => return,
                // The first process of a container also inherits orphans.
                _ = child.recv() => children::reap(),
            }
        }
    })
}
