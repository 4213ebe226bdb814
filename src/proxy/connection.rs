//! The state of a client's connection, for limits and deadlines.
//!
//! The layers of the stack write it, and the server that drives the connection reads it. A connection counts under
//! `--max-connections` from its first accepted request. An answer of the proxy's own holds neither the request's permit nor the
//! connection: the server drops it if the client does not read it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::memory::{CLIENT_CONNECTION, Charge, Heads, HeadsFull, Memory, SMALL_HEAD};

/// The maximum of unread own answers to unauthenticated callers, on all connections.
const STRANGERS_ANSWERS: usize = 512;

const NEW: u8 = 0;
const ADMITTED: u8 = 1;
const REFUSED: u8 = 2;

thread_local! {
    /// Set if the future that this thread polls has started an own answer.
    static OWN_ANSWER: Cell<bool> = const { Cell::new(false) };
}

/// Counts the connections under one limit, and the own answers on them.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    memory: Memory,
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

/// One connection. Shared by the task that drives it and the requests on it.
#[derive(Debug)]
pub struct ConnectionState {
    connections: Arc<Connections>,
    opened: Instant,
    admission: AtomicU8,
    /// The number of complete request heads received.
    heads: AtomicUsize,
    /// Requests whose answer has not ended.
    requests: AtomicUsize,
    /// Requests among these whose answer is the proxy's own.
    answers: AtomicUsize,
    /// Milliseconds after `opened` at which a request ended.
    ended: AtomicU64,
    /// A part of the next head was received.
    reading: AtomicBool,
    /// The last four bytes received.
    tail: AtomicU32,
    /// The end of the last request: see [`End`].
    end: AtomicU64,
    /// The last bytes written belong, at least in part, to an own answer.
    own: AtomicBool,
    /// The client does not read.
    blocked: AtomicBool,
    /// A request was answered before all of its body was read.
    truncated: AtomicBool,
    /// No further request is read.
    over: AtomicBool,
    /// HTTP/1.1: a large head is counted until the connection ends, because its buffer stays.
    large_head: AtomicBool,
    evicting: AtomicBool,
    evicted: Notify,
    _charge: Charge,
}

/// One request, until its answer was passed to the transport or its tunnel closed.
#[derive(Debug)]
pub struct InProgress {
    state: Arc<ConnectionState>,
    own: AtomicU8,
    /// HTTP/2: the memory of a large field list, or the error if it exceeds the budget.
    head: Option<Result<Heads, HeadsFull>>,
}

/// The values of [`InProgress::own`].
const CARRIED: u8 = 0;
const OWN: u8 = 1;
const OWN_STRANGER: u8 = 2;

/// An own answer was refused: too many are unread.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many answers wait for clients that do not read them")]
pub struct TooManyAnswers;

/// The end of a request's bytes. HTTP/1.1: hyper does not say whether its buffer holds a part of the next head, but the last bytes
/// received do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// The whole request was received.
    known: bool,
    /// The last bytes of the body, at most four, and their number.
    tail: u32,
    length: u8,
}

// === impl Connections ===

impl Connections {
    /// At most `limit` connections, and as many unread answers of our own. They count against `memory`.
    pub fn new(limit: usize, memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            limit,
            memory,
            admitted: AtomicUsize::new(0),
            answers: Counter::new(limit),
            strangers_answers: Counter::new(STRANGERS_ANSWERS),
        })
    }

    /// The number of connections that count under the limit.
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
    /// The state of a connection that was accepted now.
    pub fn new(connections: Arc<Connections>) -> Arc<Self> {
        Arc::new(Self {
            _charge: connections.memory.charge(CLIENT_CONNECTION),
            connections,
            opened: Instant::now(),
            admission: AtomicU8::new(NEW),
            heads: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            tail: AtomicU32::new(0),
            end: AtomicU64::new(0),
            own: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            over: AtomicBool::new(false),
            large_head: AtomicBool::new(false),
            evicting: AtomicBool::new(false),
            evicted: Notify::new(),
        })
    }

    /// A complete head was received.
    pub fn begin(self: &Arc<Self>) -> InProgress {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InProgress {
            state: self.clone(),
            own: AtomicU8::new(CARRIED),
            head: None,
        }
    }

    /// The memory budget.
    pub fn memory(&self) -> &Memory {
        &self.connections.memory
    }

    /// Notes that the connection's buffer has held a large head.
    pub fn keeps_large_head(&self) {
        self.large_head.store(true, Ordering::Relaxed);
    }

    /// Whether it is idle, and others need the memory of its large head.
    pub fn is_hoarding(&self) -> bool {
        self.large_head.load(Ordering::Relaxed)
            && self.is_idle()
            && !self.is_reading_head()
            && self.memory().is_crowded()
    }

    /// Counts the connection under the limit, unless it is counted already. Returns false if the limit is reached.
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

    /// Refuses the connection: its requests are answered with 503.
    pub fn refuse(&self) {
        let _ = self
            .admission
            .compare_exchange(NEW, REFUSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether it counts under the limit.
    pub fn is_admitted(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == ADMITTED
    }

    /// Whether it was refused.
    pub fn is_refused(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == REFUSED
    }

    /// When it was accepted.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether a complete head was received.
    pub fn has_head(&self) -> bool {
        self.heads() > 0
    }

    /// The number of complete heads received.
    pub fn heads(&self) -> usize {
        self.heads.load(Ordering::Relaxed)
    }

    /// Whether no request or answer is in progress.
    pub fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether a request is in progress whose answer is not the proxy's own.
    pub fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.answers.load(Ordering::Relaxed)
    }

    /// When it became idle, if it is.
    pub fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }

    /// Whether a part of a head may have been received, if no request is in progress.
    pub fn is_reading_head(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    /// Whether the client does not read an own answer, and nothing else is in progress.
    pub fn is_unread(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) && self.own.load(Ordering::Relaxed) && !self.is_busy()
    }

    /// Notes bytes from the client.
    pub fn received(&self, bytes: &[u8]) {
        let tail = End::shift(self.tail.load(Ordering::Relaxed), bytes);
        self.tail.store(tail, Ordering::Relaxed);
        if self.is_idle() {
            self.reading.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the client does not read.
    pub fn write_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// Notes that everything was written.
    pub fn flushed(&self) {
        if self.blocked.load(Ordering::Relaxed) || self.own.load(Ordering::Relaxed) {
            self.blocked.store(false, Ordering::Relaxed);
            self.own.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that the rest of a request's body will not be read.
    pub fn truncate(&self) {
        self.truncated.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending a body that will not be read.
    pub fn is_truncated(&self) -> bool {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Ends the connection: no further request is read, and further bytes are discarded.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// See [`ConnectionState::end`].
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether written bytes are still unsent.
    pub fn is_write_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Closes it to make room for another.
    pub fn evict(&self) {
        self.evicting.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Whether [`ConnectionState::evict`] was called.
    pub fn is_evicted(&self) -> bool {
        self.evicting.load(Ordering::Relaxed)
    }

    /// Completes once [`ConnectionState::evict`] was called.
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
    /// The connection of the request.
    pub fn connection(&self) -> &ConnectionState {
        &self.state
    }

    /// Notes content of the request's body.
    pub fn content(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.state
                .end
                .store(End::of(bytes).pack(), Ordering::Relaxed);
        }
    }

    /// Notes that the whole request was received.
    pub fn is_whole(&self) {
        self.state.end.fetch_or(End::KNOWN, Ordering::Relaxed);
    }

    /// Counts a field list of so many bytes until the request ends.
    pub fn count_head(&mut self, bytes: usize) {
        if bytes > SMALL_HEAD {
            let mut heads = self.state.memory().heads();
            self.head = Some(heads.set(bytes).map(|()| heads));
        }
    }

    /// Why its field list must be refused, if it must.
    pub fn head_refused(&self) -> Option<HeadsFull> {
        self.head.as_ref()?.as_ref().err().copied()
    }

    /// Turns the request into an answer of the proxy's own, which the client has to read.
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
            // Over HTTP/2 the answer reaches the connection's buffer only now.
            state.own.store(true, Ordering::Relaxed);
        }
        let open = Instant::now().saturating_duration_since(state.opened);
        let open = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
        state.ended.store(open, Ordering::Relaxed);
        let end = End::unpack(state.end.load(Ordering::Relaxed));
        if end.known && !end.is_at(state.tail.load(Ordering::Relaxed)) {
            state.reading.store(true, Ordering::Relaxed);
        }
        state.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl End ===

impl End {
    const KNOWN: u64 = 1 << 63;

    fn of(bytes: &[u8]) -> Self {
        Self {
            known: false,
            tail: Self::shift(0, bytes),
            length: u8::try_from(bytes.len().min(4)).unwrap_or(4),
        }
    }

    /// The last four bytes after these ones.
    fn shift(tail: u32, bytes: &[u8]) -> u32 {
        match bytes.last_chunk() {
            Some(last) => u32::from_be_bytes(*last),
            None => bytes
                .iter()
                .fold(tail, |tail, byte| tail << 8 | u32::from(*byte)),
        }
    }

    fn pack(self) -> u64 {
        let known = if self.known { Self::KNOWN } else { 0 };
        known | u64::from(self.length) << 32 | u64::from(self.tail)
    }

    #[allow(clippy::cast_possible_truncation)] // Each part is taken out whole.
    fn unpack(packed: u64) -> Self {
        Self {
            known: packed & Self::KNOWN != 0,
            tail: packed as u32,
            length: (packed >> 32) as u8,
        }
    }

    /// Whether the request ends with these last bytes of a connection: an empty line, or its content.
    fn is_at(self, tail: u32) -> bool {
        let empty_line = tail & 0x00ff_ffff == 0x000a_0d0a || tail & 0xffff == 0x0a0a;
        let mask = match self.length {
            0 => return empty_line,
            length @ 1..=3 => (1 << (8 * length)) - 1,
            _ => u32::MAX,
        };
        empty_line || tail & mask == self.tail & mask
    }
}

/// Polls a future that serves one stream. Returns whether it has started an own answer.
///
/// hyper has no way to abort a stream whose client grants no window. It leaves the stream's future to an executor, which
/// can drop it.
pub fn polled_own_answer<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    OWN_ANSWER.set(false);
    let polled = poll();
    (polled, OWN_ANSWER.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_request_is_seen_by_the_last_bytes() {
        for (content, received, follows) in [
            ("", "GET / HTTP/1.1\r\n\r\n", false),
            ("", "GET / HTTP/1.1\n\n", false),
            ("", "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", true),
            ("", "GET / HTTP/1.1\r\n\r\nG", true),
            ("a", "Content-Length: 1\r\n\r\na", false),
            ("a", "Content-Length: 1\r\n\r\naG", true),
            ("hello", "Content-Length: 5\r\n\r\nhello", false),
            ("hello", "Content-Length: 5\r\n\r\nhelloGET /", true),
            ("hello", "5\r\nhello\r\n0\r\n\r\n", false),
            ("hello", "5\r\nhello\r\n0\r\n\r\nGE", true),
        ] {
            for step in 1..8 {
                let mut tail = 0;
                for part in received.as_bytes().chunks(step) {
                    tail = End::shift(tail, part);
                }
                let end = End::unpack(End::of(content.as_bytes()).pack() | End::KNOWN);
                assert!(end.known);
                assert_eq!(!end.is_at(tail), follows, "{received:?}");
            }
        }
    }
}
