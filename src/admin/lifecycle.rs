//! Where the process stands between start and end.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

/// Starting, serving, draining; and whether somebody asked to quit.
#[derive(Debug, Default)]
pub struct Lifecycle {
    state: AtomicU8,
    quit: CancellationToken,
}

impl Lifecycle {
    /// All listeners accept.
    pub fn serving(&self) {
        self.state.store(SERVING, Ordering::Release);
    }

    /// The end has begun.
    pub fn draining(&self) {
        self.state.store(DRAINING, Ordering::Release);
    }

    /// Whether the listeners accept; still so while draining.
    pub fn is_listening(&self) -> bool {
        self.state.load(Ordering::Acquire) != STARTING
    }

    /// Whether new work should go elsewhere.
    pub fn is_draining(&self) -> bool {
        self.state.load(Ordering::Acquire) == DRAINING
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
