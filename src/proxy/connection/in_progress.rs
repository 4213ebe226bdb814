//! One request of a connection, until its response has ended.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::time::Instant;

use super::ConnectionState;
use super::request_end::End;
use crate::memory::{Heads, HeadsFull, SMALL_HEAD};

thread_local! {
    /// Set if the future that this thread polls has started an own answer.
    static OWN_ANSWER: Cell<bool> = const { Cell::new(false) };
}

/// One request, until its response was passed to the transport or its tunnel closed.
#[derive(Debug)]
pub(crate) struct InProgress {
    state: Arc<ConnectionState>,
    own: AtomicU8,
    /// HTTP/2: the memory of a large field list, or the error if it exceeds the budget.
    head: Option<Result<Heads, HeadsFull>>,
}

/// The values of [`InProgress::own`].
const CARRIED: u8 = 0;
const OWN: u8 = 1;
const OWN_UNAUTHENTICATED: u8 = 2;

/// An own answer was refused: too many are unread.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many responses are unread by their clients: raise --max-connections")]
pub(crate) struct TooManyAnswers;

// === impl InProgress ===

impl InProgress {
    /// Creates a request whose head was received on this connection.
    pub(super) fn new(state: Arc<ConnectionState>) -> Self {
        Self {
            state,
            own: AtomicU8::new(CARRIED),
            head: None,
        }
    }

    /// Returns the connection of the request.
    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    /// Records content of the request's body.
    pub(crate) fn content(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.state
                .end
                .store(End::of(bytes).pack(), Ordering::Relaxed);
        }
    }

    /// Records that the whole request was received.
    pub(crate) fn request_completed(&self) {
        self.state.end.fetch_or(End::KNOWN, Ordering::Relaxed);
    }

    /// Counts a field list of this number of bytes until the request ends.
    pub(crate) fn count_head(&mut self, bytes: usize) {
        if bytes > SMALL_HEAD {
            let mut heads = self.state.memory().heads();
            self.head = Some(heads.set(bytes).map(|()| heads));
        }
    }

    /// Returns the reason that its field list must be refused, if any.
    pub(crate) fn head_refused(&self) -> Option<HeadsFull> {
        self.head.as_ref()?.as_ref().err().copied()
    }

    /// Turns the request into an answer of the proxy's own, which the client has to read.
    ///
    /// # Errors
    ///
    /// Too many answers are unread.
    pub(crate) fn answer(&self, unauthenticated: bool) -> Result<(), TooManyAnswers> {
        let connections = &self.state.connections;
        let (counter, own) = if unauthenticated {
            (&connections.unauthenticated_responses, OWN_UNAUTHENTICATED)
        } else {
            (&connections.own_responses, OWN)
        };
        if !counter.take() {
            return Err(TooManyAnswers);
        }
        self.own.store(own, Ordering::Relaxed);
        self.state.own_responses.fetch_add(1, Ordering::Relaxed);
        self.state.last_write_is_own.store(true, Ordering::Relaxed);
        OWN_ANSWER.set(true);
        Ok(())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let state = &self.state;
        let counter = match *self.own.get_mut() {
            OWN => Some(&state.connections.own_responses),
            OWN_UNAUTHENTICATED => Some(&state.connections.unauthenticated_responses),
            _ => None,
        };
        if let Some(counter) = counter {
            counter.give_back();
            state.own_responses.fetch_sub(1, Ordering::Relaxed);
            // Over HTTP/2 the answer reaches the connection's buffer only now.
            state.last_write_is_own.store(true, Ordering::Relaxed);
        }
        let open = Instant::now().saturating_duration_since(state.opened);
        let open = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
        state.ended.store(open, Ordering::Relaxed);
        let end = End::unpack(state.end.load(Ordering::Relaxed));
        if end.known && !end.is_at(state.last_bytes.load(Ordering::Relaxed)) {
            state.reading.store(true, Ordering::Relaxed);
        }
        state.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls a future that serves one stream. Returns whether it has started an own answer.
///
/// hyper has no way to abort a stream whose client grants no window. It leaves the stream's future to an executor,
/// which can drop it.
pub(crate) fn polled_own_answer<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    OWN_ANSWER.set(false);
    let polled = poll();
    (polled, OWN_ANSWER.get())
}
