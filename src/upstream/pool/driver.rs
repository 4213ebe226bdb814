//! The task of an HTTP/2 connection.
//!
//! hyper splits a connection into two futures: one reads and writes, the other begins streams. One task polls both. In
//! two tasks, a GOAWAY that arrives while a stream begins would fail the stream as unprocessed, even if the GOAWAY
//! covers it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use hyper::client::conn::http2::Connection;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;

use super::ping::Complaints;
use crate::lock::lock;
use crate::upstream::cancellable_body::{CancellableBody, SendableBody};
use crate::upstream::failure::is_too_many_pings;
use crate::upstream::io::UpstreamIo;

/// Reads and writes a connection.
pub(super) type Wire = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns hyper's tasks, except the first, which reads and writes.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<First>);

#[derive(Default)]
struct First {
    begun: AtomicBool,
    wire: Mutex<Option<Wire>>,
}

/// One of the two futures. It is polled only if it was woken, because each wakes the whole task.
struct Half<F> {
    future: Option<F>,
    wakeup: Arc<Wakeup>,
    waker: Waker,
}

/// Records that a future was woken, and wakes the task.
#[derive(Default)]
struct Wakeup {
    woken: AtomicBool,
    /// The task's waker, which never changes.
    task: OnceLock<Waker>,
}

/// Drives a connection until both of its futures have ended. `allowed` receives the number of streams that the upstream
/// permits.
pub(super) async fn drive<B: SendableBody>(
    wire: Option<Wire>,
    requests: Connection<TokioIo<UpstreamIo>, CancellableBody<B>, Tasks>,
    allowed: Arc<AtomicUsize>,
    complaints: Complaints,
) {
    let mut wire = Half::new(wire);
    let mut requests = Half::new(Some(requests));
    poll_fn(|cx| {
        loop {
            // Reads first: a request must not begin on a connection that the upstream has closed.
            let closed = wire.poll(cx).is_ready();
            let ended = requests.poll(cx);
            if let Some(requests) = &requests.future {
                allowed.store(requests.current_max_send_streams(), Ordering::Relaxed);
            }
            if matches!(&ended, Poll::Ready(Err(error)) if is_too_many_pings(error)) {
                complaints.add();
            }
            if wire.future.is_none() && requests.future.is_none() {
                return Poll::Ready(());
            }
            if !closed && ended.is_pending() {
                return Poll::Pending;
            }
            // The other future is polled, so that it notices the end of this one.
            wire.wakeup.woken.store(true, Ordering::Relaxed);
            requests.wakeup.woken.store(true, Ordering::Relaxed);
        }
    })
    .await;
}

// === impl Tasks ===

impl Tasks {
    /// Returns the first task.
    pub(super) fn take(&self) -> Option<Wire> {
        lock(&self.0.wire).take()
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Boxed, because a task with a large future is copied as a whole when it is spawned and when it ends.
        let task = Box::pin(task);
        if self.0.begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(task);
        } else {
            *lock(&self.0.wire) = Some(task);
        }
    }
}

// === impl Half ===

impl<F: Future + Unpin> Half<F> {
    fn new(future: Option<F>) -> Self {
        let wakeup = Arc::new(Wakeup {
            woken: AtomicBool::new(true),
            task: OnceLock::new(),
        });
        Self {
            future,
            waker: Waker::from(Arc::clone(&wakeup)),
            wakeup,
        }
    }

    /// Polls the future if it was woken. Drops it when it ends.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<F::Output> {
        self.wakeup.task.get_or_init(|| cx.waker().clone());
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        if !self.wakeup.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let polled = Pin::new(future).poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

// === impl Wakeup ===

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}
