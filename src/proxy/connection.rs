//! What a connection of a client has done so far, as far as limits and deadlines depend on it.
//!
//! The layers of the stack write it, and the server that drives the connection reads it. A connection takes a place under
//! `--max-connections` with its first request that may be carried. An answer of our own holds neither that request's
//! permit nor its connection: the server gives it up if the client does not read it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Unread answers of our own to callers who have not authenticated, on all connections.
const STRANGERS_ANSWERS: usize = 512;

const NEW: u8 = 0;
const ADMITTED: u8 = 1;
const REFUSED: u8 = 2;

thread_local! {
    /// The future that is being polled on this thread has begun an answer of our own.
    static OWN_ANSWER: Cell<bool> = const { Cell::new(false) };
}

/// The connections of a process that count under one limit, and the answers of our own on them.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    admitted: AtomicUsize,
    answers: Counter,
    strangers_answers: Counter,
}

/// Counts up to a limit.
#[derive(Debug)]
struct Counter {
    limit: usize,
    count: AtomicUsize,
}

/// One connection. Shared by whoever drives it and the requests on it.
#[derive(Debug)]
pub struct ConnectionState {
    connections: Arc<Connections>,
    opened: Instant,
    admission: AtomicU8,
    /// A complete request head has come.
    heads: AtomicBool,
    /// Requests whose answer is not over.
    requests: AtomicUsize,
    /// Those of them whose answer is our own.
    answers: AtomicUsize,
    /// Milliseconds after `opened` at which a request ended.
    ended: AtomicU64,
    /// A part of the next head has come.
    reading: AtomicBool,
    /// What was written last is, at least in part, an answer of our own.
    own: AtomicBool,
    /// The client takes no more bytes.
    blocked: AtomicBool,
    evicted: Notify,
}

/// One request, until its answer has been handed to the transport. A tunnel lasts as long as it is open.
#[derive(Debug)]
pub struct InProgress {
    state: Arc<ConnectionState>,
    own: AtomicU8,
}

/// The values of [`InProgress::own`].
const CARRIED: u8 = 0;
const OWN: u8 = 1;
const OWN_STRANGER: u8 = 2;

/// An answer of our own that may not be begun: too many wait for clients that do not read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many answers wait for clients that do not read them")]
pub struct TooManyAnswers;

// === impl Connections ===

impl Connections {
    /// At most `limit` connections, and as many unread answers of our own.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            admitted: AtomicUsize::new(0),
            answers: Counter::new(limit),
            strangers_answers: Counter::new(STRANGERS_ANSWERS),
        })
    }

    /// The connections that hold a place under the limit.
    pub fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }
}

// === impl Counter ===

impl Counter {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            count: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> bool {
        let fits = self.count.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !fits {
            self.give_back();
        }
        fits
    }

    fn give_back(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl ConnectionState ===

impl ConnectionState {
    /// A connection that was accepted now.
    pub fn new(connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            connections,
            opened: Instant::now(),
            admission: AtomicU8::new(NEW),
            heads: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            own: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            evicted: Notify::new(),
        })
    }

    /// A complete head has come.
    pub fn begin(self: &Arc<Self>) -> InProgress {
        self.heads.store(true, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InProgress {
            state: self.clone(),
            own: AtomicU8::new(CARRIED),
        }
    }

    /// Gives the connection its place under the limit, unless it has it. False where there is none.
    pub fn admit(&self) -> bool {
        match self.admission.load(Ordering::Relaxed) {
            ADMITTED => return true,
            REFUSED => return false,
            _ => {}
        }
        let before = self.connections.admitted.fetch_add(1, Ordering::Relaxed);
        let admission = if before < self.connections.limit {
            ADMITTED
        } else {
            REFUSED
        };
        let first =
            self.admission
                .compare_exchange(NEW, admission, Ordering::Relaxed, Ordering::Relaxed);
        if admission == REFUSED || first.is_err() {
            self.connections.admitted.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_admitted()
    }

    /// It holds a place under the limit.
    pub fn is_admitted(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == ADMITTED
    }

    /// There was no place for it.
    pub fn is_refused(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == REFUSED
    }

    /// When it was accepted.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// A complete head has come at some time.
    pub fn has_head(&self) -> bool {
        self.heads.load(Ordering::Relaxed)
    }

    /// No request is in progress, and none of the answers.
    pub fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// A request is in progress that is not answered by an error of our own.
    pub fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.answers.load(Ordering::Relaxed)
    }

    /// Since when it has been idle, if it is.
    pub fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }

    /// A part of a head is there and no request is in progress.
    pub fn is_reading_head(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    /// The client does not take an answer of our own, and nothing else is in progress.
    pub fn is_unread(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) && self.own.load(Ordering::Relaxed) && !self.is_busy()
    }

    /// Bytes came from the client.
    pub fn received(&self) {
        if self.is_idle() {
            self.reading.store(true, Ordering::Relaxed);
        }
    }

    /// The client takes no more bytes.
    pub fn write_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// All that was to be written has been.
    pub fn flushed(&self) {
        if self.blocked.load(Ordering::Relaxed) || self.own.load(Ordering::Relaxed) {
            self.blocked.store(false, Ordering::Relaxed);
            self.own.store(false, Ordering::Relaxed);
        }
    }

    /// Closes it to make room for another.
    pub fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Completes once it is to make room.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        if self.is_admitted() {
            self.connections.admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

// === impl InProgress ===

impl InProgress {
    /// Where it came.
    pub fn connection(&self) -> &ConnectionState {
        &self.state
    }

    /// From now on the request is no more than an answer of our own that its client has to read.
    ///
    /// # Errors
    ///
    /// Too many answers are unread.
    pub fn answer(&self, stranger: bool) -> Result<(), TooManyAnswers> {
        let connections = &self.state.connections;
        let (counter, own) = if stranger {
            (&connections.strangers_answers, OWN_STRANGER)
        } else {
            (&connections.answers, OWN)
        };
        if !counter.take() {
            return Err(TooManyAnswers);
        }
        self.own.store(own, Ordering::Relaxed);
        self.state.answers.fetch_add(1, Ordering::Relaxed);
        self.state.own.store(true, Ordering::Relaxed);
        OWN_ANSWER.set(true);
        Ok(())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let state = &self.state;
        let counter = match *self.own.get_mut() {
            OWN => Some(&state.connections.answers),
            OWN_STRANGER => Some(&state.connections.strangers_answers),
            _ => None,
        };
        if let Some(counter) = counter {
            counter.give_back();
            state.answers.fetch_sub(1, Ordering::Relaxed);
            // Over HTTP/2 it is in the connection's buffer only now.
            state.own.store(true, Ordering::Relaxed);
        }
        let open = Instant::now().saturating_duration_since(state.opened);
        let open = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
        state.ended.store(open, Ordering::Relaxed);
        state.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls a future that serves one stream, and tells whether it has begun an answer of our own.
///
/// hyper has no way to abort a stream whose client grants no window. It leaves the stream's future to an executor, which
/// can drop it.
pub fn polled_own_answer<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    OWN_ANSWER.set(false);
    let polled = poll();
    (polled, OWN_ANSWER.get())
}
