//! The state of the process: starting, serving or draining.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

/// The state of the process, and whether it was asked to quit.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    state: AtomicU8,
    quit: CancellationToken,
    drain: CancellationToken,
    began: Began,
    served: OnceLock<SystemTime>,
    drained: OnceLock<SystemTime>,
    probes: AtomicU32,
}

/// A time; by default, the current one.
#[derive(Clone, Copy, Debug)]
struct Began(SystemTime);

impl Lifecycle {
    /// Enters the serving state: all listeners accept.
    pub(crate) fn serving(&self) {
        let _ = self.served.set(SystemTime::now());
        self.state.store(SERVING, Ordering::Release);
    }

    /// Enters the drain.
    pub(crate) fn draining(&self) {
        let _ = self.drained.set(SystemTime::now());
        self.state.store(DRAINING, Ordering::Release);
        self.drain.cancel();
    }

    /// Completes when the drain has begun.
    pub(crate) async fn drain_begun(&self) {
        self.drain.cancelled().await;
    }

    /// Returns whether the listeners accept. They also do so while draining.
    pub(crate) fn is_listening(&self) -> bool {
        self.state.load(Ordering::Acquire) != STARTING
    }

    /// Returns whether new work should go elsewhere.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.load(Ordering::Acquire) == DRAINING
    }

    /// Returns the time at which the process began.
    pub(crate) fn began(&self) -> SystemTime {
        self.began.0
    }

    /// Returns the name of the state, and the time at which it began.
    pub(crate) fn state(&self) -> (&'static str, SystemTime) {
        let (word, since) = match self.state.load(Ordering::Acquire) {
            STARTING => ("starting", None),
            SERVING => ("serving", self.served.get()),
            _ => ("draining", self.drained.get()),
        };
        (word, since.copied().unwrap_or(self.began.0))
    }

    /// Counts a liveness probe, and returns their number.
    pub(super) fn probed(&self) -> u32 {
        self.probes.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Requests the end of the process (`POST /quitquitquit`).
    pub(crate) fn quit(&self) {
        self.quit.cancel();
    }

    /// Completes after `POST /quitquitquit`.
    pub(crate) async fn asked_to_quit(&self) {
        self.quit.cancelled().await;
    }
}

// === impl Began ===

impl Default for Began {
    fn default() -> Self {
        Self(SystemTime::now())
    }
}
