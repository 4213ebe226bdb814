//! Where the process stands between start and end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

/// Starting, serving, draining; and whether somebody asked to quit.
#[derive(Debug, Default)]
pub struct Lifecycle {
    state: AtomicU8,
    quit: CancellationToken,
    drain: CancellationToken,
    began: Began,
    served: OnceLock<SystemTime>,
    drained: OnceLock<SystemTime>,
    probes: AtomicU32,
}

/// A moment; by default, this one.
#[derive(Clone, Copy, Debug)]
struct Began(SystemTime);

impl Lifecycle {
    /// All listeners accept.
    pub fn serving(&self) {
        let _ = self.served.set(SystemTime::now());
        self.state.store(SERVING, Ordering::Release);
    }

    /// The end has begun.
    pub fn draining(&self) {
        let _ = self.drained.set(SystemTime::now());
        self.state.store(DRAINING, Ordering::Release);
        self.drain.cancel();
    }

    /// Completes once the end has begun.
    pub async fn drain_begun(&self) {
        self.drain.cancelled().await;
    }

    /// Whether the listeners accept; still so while draining.
    pub fn is_listening(&self) -> bool {
        self.state.load(Ordering::Acquire) != STARTING
    }

    /// Whether new work should go elsewhere.
    pub fn is_draining(&self) -> bool {
        self.state.load(Ordering::Acquire) == DRAINING
    }

    /// When the process began.
    pub fn began(&self) -> SystemTime {
        self.began.0
    }

    /// Where it stands, in one word, and since when.
    pub fn state(&self) -> (&'static str, SystemTime) {
        let (word, since) = match self.state.load(Ordering::Acquire) {
            STARTING => ("starting", None),
            SERVING => ("serving", self.served.get()),
            _ => ("draining", self.drained.get()),
        };
        (word, since.copied().unwrap_or(self.began.0))
    }

    /// A liveness probe; how many there were, this one included.
    pub(super) fn probed(&self) -> u32 {
        self.probes.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// `POST /quitquitquit`.
    pub fn quit(&self) {
        self.quit.cancel();
    }

    /// Completes once somebody has asked.
    pub async fn asked_to_quit(&self) {
        self.quit.cancelled().await;
    }
}

// === impl Began ===

impl Default for Began {
    fn default() -> Self {
        Self(SystemTime::now())
    }
}
