//! The state of a client's connection, for limits and deadlines.
//!
//! The layers of the stack write it, and the server that drives the connection reads it. A connection counts under
//! `--max-connections` from its first accepted request. An answer of the proxy's own holds neither the request's permit
//! nor the connection: the server drops it if the client does not read it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::request_end::End;
use crate::memory::{CLIENT_CONNECTION, Charge, Memory};
use crate::telemetry::GaugeGuard;

mod counters;
mod in_progress;
mod request_end;

pub(crate) use self::counters::Connections;
pub(crate) use self::in_progress::{InProgress, TooManyAnswers, polled_own_answer};

const NEW: u8 = 0;
const ADMITTED: u8 = 1;
const REFUSED: u8 = 2;

/// One connection. Shared by the task that drives it and the requests on it.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    connections: Arc<Connections>,
    opened: Instant,
    /// The connection that this one is inside, as the contents of a tunnel. They count with it under the limit.
    outside: Option<Arc<Self>>,
    /// Counts the connection in the metrics.
    gauge: OnceLock<GaugeGuard>,
    admission: AtomicU8,
    /// The number of complete request heads received.
    heads: AtomicUsize,
    /// Requests whose response has not ended.
    requests: AtomicUsize,
    /// Requests among these whose response is an own answer.
    own_responses: AtomicUsize,
    /// Milliseconds after `opened` at which a request ended.
    ended: AtomicU64,
    /// A part of the next head was received.
    reading: AtomicBool,
    /// The last four bytes received.
    last_bytes: AtomicU32,
    /// The end of the last request: see [`End`].
    end: AtomicU64,
    /// The last bytes written belong, at least in part, to an own answer.
    last_write_is_own: AtomicBool,
    /// The client does not read.
    blocked: AtomicBool,
    /// A request was answered before all of its body was read.
    truncated: AtomicBool,
    /// No further request is read.
    reads_ended: AtomicBool,
    /// HTTP/1.1: a large head is counted until the connection ends, because its buffer stays.
    large_head: AtomicBool,
    /// HTTP/1.0 is spoken.
    http10: AtomicBool,
    /// The stream must be checked for a client that is gone.
    check_due: AtomicBool,
    /// The client has closed the connection, although a request is in progress.
    gone: AtomicBool,
    evicting: AtomicBool,
    evicted: Notify,
    _charge: Charge,
}

// === impl ConnectionState ===

impl ConnectionState {
    /// Creates the state of a connection that was accepted now.
    pub(crate) fn new(connections: Arc<Connections>) -> Arc<Self> {
        Self::create(connections, None)
    }

    /// Creates the state of the contents of a tunnel in the connection `outside`.
    pub(crate) fn inside(outside: Arc<Self>, connections: Arc<Connections>) -> Arc<Self> {
        Self::create(connections, Some(outside))
    }

    fn create(connections: Arc<Connections>, outside: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            outside,
            gauge: OnceLock::new(),
            _charge: connections.memory.charge(CLIENT_CONNECTION),
            connections,
            opened: Instant::now(),
            admission: AtomicU8::new(NEW),
            heads: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            own_responses: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            last_bytes: AtomicU32::new(0),
            end: AtomicU64::new(0),
            last_write_is_own: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            reads_ended: AtomicBool::new(false),
            large_head: AtomicBool::new(false),
            http10: AtomicBool::new(false),
            check_due: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            evicting: AtomicBool::new(false),
            evicted: Notify::new(),
        })
    }

    /// Counts the connection in the metrics until it ends, also as a tunnel.
    pub(crate) fn set_gauge(&self, gauge: GaugeGuard) {
        let _ = self.gauge.set(gauge);
    }

    /// Records that a complete head was received.
    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InProgress::new(self.clone())
    }

    /// Returns the memory budget.
    pub(crate) fn memory(&self) -> &Memory {
        &self.connections.memory
    }

    /// Records that the connection's buffer has held a large head.
    pub(crate) fn record_large_head(&self) {
        self.large_head.store(true, Ordering::Relaxed);
    }

    /// Returns whether it is idle, and others need the memory of its large head.
    pub(crate) fn holds_idle_head_buffer(&self) -> bool {
        self.large_head.load(Ordering::Relaxed)
            && self.is_idle()
            && !self.is_reading_head()
            && self.memory().is_under_pressure()
    }

    /// Returns whether it takes a place of the limit: the contents of a tunnel share that of the connection outside.
    const fn counts(&self) -> bool {
        self.outside.is_none()
    }

    /// Counts the connection under the limit, unless it is counted already. Returns false if the limit is reached.
    pub(crate) fn admit(&self) -> bool {
        match self.admission.load(Ordering::Relaxed) {
            ADMITTED => return true,
            REFUSED => return false,
            _ => {}
        }
        let Connections {
            admitted, limit, ..
        } = &*self.connections;
        let is_over = self.counts() && admitted.fetch_add(1, Ordering::Relaxed) >= *limit;
        let admission = if is_over { REFUSED } else { ADMITTED };
        let first =
            self.admission
                .compare_exchange(NEW, admission, Ordering::Relaxed, Ordering::Relaxed);
        if self.counts() && (is_over || first.is_err()) {
            admitted.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_admitted()
    }

    /// Refuses the connection: its requests are answered with 503.
    pub(crate) fn refuse(&self) {
        let _ = self
            .admission
            .compare_exchange(NEW, REFUSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns whether it counts under the limit.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == ADMITTED
    }

    /// Returns whether it was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.admission.load(Ordering::Relaxed) == REFUSED
    }

    /// Returns the time at which it was accepted.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Returns whether a complete head was received.
    pub(crate) fn has_head(&self) -> bool {
        self.heads() > 0
    }

    /// Returns the number of complete heads received.
    pub(crate) fn heads(&self) -> usize {
        self.heads.load(Ordering::Relaxed)
    }

    /// Returns whether no request or answer is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Returns whether a request is in progress whose answer is not the proxy's own.
    pub(crate) fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.own_responses.load(Ordering::Relaxed)
    }

    /// Returns the time at which it became idle, if it is.
    pub(crate) fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }

    /// Returns whether a part of a head may have been received, if no request is in progress.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    /// Returns whether the client does not read an own answer, and nothing else is in progress.
    pub(crate) fn is_unread(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
            && self.last_write_is_own.load(Ordering::Relaxed)
            && !self.is_busy()
    }

    /// Records bytes from the client.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let last_bytes = End::shift(self.last_bytes.load(Ordering::Relaxed), bytes);
        self.last_bytes.store(last_bytes, Ordering::Relaxed);
        if self.is_idle() {
            self.reading.store(true, Ordering::Relaxed);
        }
    }

    /// Records that the client does not read.
    pub(crate) fn write_blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// Records that all bytes were written.
    pub(crate) fn flushed(&self) {
        if self.blocked.load(Ordering::Relaxed) || self.last_write_is_own.load(Ordering::Relaxed) {
            self.blocked.store(false, Ordering::Relaxed);
            self.last_write_is_own.store(false, Ordering::Relaxed);
        }
    }

    /// Records that the rest of a request's body will not be read.
    pub(crate) fn truncate(&self) {
        self.truncated.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client may still be sending a body that will not be read.
    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Records that a request is of HTTP/1.0.
    pub(crate) fn set_http10(&self) {
        self.http10.store(true, Ordering::Relaxed);
    }

    /// Returns whether a request was of HTTP/1.0.
    pub(crate) fn is_http10(&self) -> bool {
        self.http10.load(Ordering::Relaxed)
    }

    /// Requests a check of the stream at its next write or flush. Only the stream outside of a tunnel can tell.
    pub(crate) fn request_check(&self) {
        match &self.outside {
            Some(outside) => outside.request_check(),
            None => self.check_due.store(true, Ordering::Relaxed),
        }
    }

    /// Returns whether a check was requested, once.
    pub(crate) fn take_check(&self) -> bool {
        self.check_due.load(Ordering::Relaxed) && self.check_due.swap(false, Ordering::Relaxed)
    }

    /// Records that the client has closed the connection.
    pub(crate) fn client_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Returns whether the client has closed the connection.
    pub(crate) fn is_client_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
            || self
                .outside
                .as_ref()
                .is_some_and(|outside| outside.is_client_gone())
    }

    /// Ends the connection: no further request is read, and further bytes are discarded.
    pub(crate) fn end(&self) {
        self.reads_ended.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`ConnectionState::end`] was called.
    pub(crate) fn is_over(&self) -> bool {
        self.reads_ended.load(Ordering::Relaxed)
    }

    /// Returns whether written bytes are still unsent.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Closes it to make room for another.
    pub(crate) fn evict(&self) {
        self.evicting.store(true, Ordering::Relaxed);
        self.evicted.notify_one();
    }

    /// Returns whether [`ConnectionState::evict`] was called.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicting.load(Ordering::Relaxed)
    }

    /// Completes once [`ConnectionState::evict`] was called.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        if self.counts() && self.is_admitted() {
            self.connections.admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
