//! The order of requests and responses on a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::lock::lock;

/// The state of the socket since the last request began.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceiveState(Arc<ReceiveFlags>);

#[derive(Debug, Default)]
struct ReceiveFlags {
    /// Whether bytes have arrived.
    received: AtomicBool,
    /// HTTP/1.1: whether hyper has taken the whole request.
    taken: AtomicBool,
    /// HTTP/1.1: whether the socket has taken the whole request.
    sent: AtomicBool,
    /// HTTP/1.1: whether the last bytes arrived before the whole request was sent.
    early: AtomicBool,
    /// HTTP/1.1: whether the request was cancelled.
    cancelled: AtomicBool,
    /// HTTP/1.1: whether the socket is not read, because the app has not taken the last bytes.
    paused: AtomicBool,
    /// HTTP/1.1: the task that reads the socket, while it waits for [`ReceiveState::resume`].
    reader: Mutex<Option<Waker>>,
    /// HTTP/2: whether a stream may have received only interim responses.
    interim: AtomicBool,
    /// HTTP/2: whether a stream was reset for its interim responses.
    flooded: AtomicBool,
}

/// A request that is being sent. Its drop marks the end, because hyper drops a body once it has taken all of it.
#[derive(Debug)]
pub(super) struct SendGuard(ReceiveState);

// === impl ReceiveState ===

// Relaxed: hyper's task writes these before it sends a response, or the end of one, through a channel.
impl ReceiveState {
    pub(super) fn bytes_received(&self) {
        let ReceiveFlags {
            received,
            sent,
            early,
            ..
        } = &*self.0;
        received.store(true, Ordering::Relaxed);
        early.store(!sent.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Records a flush. hyper flushes the socket once it has written everything. Returns whether this flush ended a
    /// request whose response had begun to arrive.
    pub(super) fn record_flush(&self) -> bool {
        let ReceiveFlags {
            received,
            taken,
            sent,
            ..
        } = &*self.0;
        if !taken.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) {
            return false;
        }
        sent.store(true, Ordering::Relaxed);
        received.load(Ordering::Relaxed)
    }

    /// Records the begin of a request.
    pub(super) fn begin(&self) -> SendGuard {
        let ReceiveFlags {
            received,
            taken,
            sent,
            early,
            ..
        } = &*self.0;
        for flag in [received, taken, sent, early] {
            flag.store(false, Ordering::Relaxed);
        }
        SendGuard(self.clone())
    }

    /// HTTP/1.1: records that the request was cancelled. The connection cannot be used again.
    pub(super) fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// HTTP/1.1: returns whether the request was cancelled before hyper took all of it. An upgraded connection goes on.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed) && !self.0.taken.load(Ordering::Relaxed)
    }

    /// HTTP/1.1: stops reading the socket.
    pub(super) fn pause(&self) {
        self.0.paused.store(true, Ordering::Release);
    }

    /// HTTP/1.1: continues to read the socket.
    pub(super) fn resume(&self) {
        if self.0.paused.swap(false, Ordering::AcqRel)
            && let Some(reader) = lock(&self.0.reader).take()
        {
            reader.wake();
        }
    }

    /// Waits until the socket may be read.
    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_paused() {
            return Poll::Ready(());
        }
        *lock(&self.0.reader) = Some(cx.waker().clone());
        // It may have been resumed just before.
        if self.is_paused() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// HTTP/1.1: returns whether the socket is not read.
    pub(super) fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Acquire)
    }

    /// HTTP/2: returns whether a stream may have received only interim responses.
    pub(super) fn interim(&self) -> bool {
        self.0.interim.load(Ordering::Relaxed)
    }

    /// HTTP/2: sets whether a stream may have received only interim responses.
    pub(super) fn set_interim(&self, waiting: bool) {
        // Loads first, because this runs at each read.
        if self.0.interim.load(Ordering::Relaxed) != waiting {
            self.0.interim.store(waiting, Ordering::Relaxed);
        }
    }

    /// HTTP/2: records that a stream was reset for its interim responses.
    pub(super) fn set_flooded(&self) {
        self.0.flooded.store(true, Ordering::Relaxed);
    }

    /// HTTP/2: returns whether a stream was reset for its interim responses.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.flooded.load(Ordering::Relaxed)
    }

    /// Returns whether bytes have arrived since the request began.
    pub(super) fn has_received(&self) -> bool {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Returns whether the whole request was sent before the last bytes of its response arrived. Otherwise the upstream
    /// may read the rest of the request as another request, and answer it on this connection.
    pub(super) fn in_order(&self) -> bool {
        self.0.sent.load(Ordering::Relaxed) && !self.0.early.load(Ordering::Relaxed)
    }
}

// === impl SendGuard ===

impl Drop for SendGuard {
    fn drop(&mut self) {
        self.0.0.taken.store(true, Ordering::Relaxed);
    }
}
