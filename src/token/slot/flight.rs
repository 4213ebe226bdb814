//! A fetch under way: it belongs to a task of its own, so that it outlives whoever started it, and it always lands.

use std::sync::Arc;

use tokio::sync::watch;

use super::Slot;
use crate::token::clock::Now;
use crate::token::failure::FetchError;
use crate::token::value::Token;

/// A fetch that others may wait for.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) started: Now,
    landing: Landing,
}

/// The end of a fetch. What came of it stands in the slot by then.
#[derive(Clone, Debug)]
pub(in crate::token) struct Landing(watch::Receiver<()>);

/// What the state decided, to be carried out when its lock is no longer held: a runtime that is going down drops a new
/// task at once, and that takes the lock.
#[derive(Debug)]
pub(super) enum Departure {
    Join(Landing),
    Start {
        id: u64,
        started: Now,
        landed: watch::Sender<()>,
        landing: Landing,
    },
}

/// Lands when it is dropped: with the result, or, after a panic or the end of the runtime, with an error.
struct Aloft {
    slot: Arc<Slot>,
    id: u64,
    started: Now,
    result: Option<Result<Token, FetchError>>,
    /// Dropped last, after the slot has the result.
    _landed: watch::Sender<()>,
}

// === impl Flight ===

impl Flight {
    /// The flight, and the order to start it.
    pub(super) fn new(id: u64, started: Now) -> (Self, Departure) {
        let (landed, landing) = watch::channel(());
        let landing = Landing(landing);
        let flight = Self {
            id,
            started,
            landing: landing.clone(),
        };
        let departure = Departure::Start {
            id,
            started,
            landed,
            landing,
        };
        (flight, departure)
    }

    /// The order to wait for it.
    pub(super) fn join(&self) -> Departure {
        Departure::Join(self.landing.clone())
    }
}

// === impl Landing ===

impl Landing {
    pub(in crate::token) async fn wait(mut self) {
        // Nothing is ever sent: the sender is dropped, and that is the message.
        let _ = self.0.changed().await;
    }
}

// === impl Departure ===

impl Departure {
    pub(super) fn launch(self, slot: &Arc<Slot>) -> Landing {
        let (id, started, landed, landing) = match self {
            Self::Join(landing) => return landing,
            Self::Start {
                id,
                started,
                landed,
                landing,
            } => (id, started, landed, landing),
        };
        let aloft = Aloft {
            slot: Arc::clone(slot),
            id,
            started,
            result: None,
            _landed: landed,
        };
        tokio::spawn(aloft.fly());
        landing
    }
}

// === impl Aloft ===

impl Aloft {
    async fn fly(mut self) {
        let Slot {
            key,
            priority,
            shared,
            ..
        } = &*self.slot;
        self.result = Some(shared.sources.fetch(key, priority).await);
    }
}

impl Drop for Aloft {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| Err(FetchError::aborted()));
        self.slot.land(self.id, self.started, result);
    }
}
