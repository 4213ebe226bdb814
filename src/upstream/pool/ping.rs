//! Decides when an HTTP/2 connection sends a PING.
//!
//! gRPC servers close a connection with more than one PING in 5 minutes without data ("too_many_pings"). So a PING is
//! sent if a request has waited for 30 s on a silent connection, and otherwise at most every 5 minutes. TCP detects a
//! lost peer without PINGs: see [`dial`](crate::upstream::dial).
//!
//! hyper sends a PING when its timer expires. This is that timer: it expires only when a PING is due.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// hyper's timer expires when a connection has been silent for this long.
pub(super) const SILENT: Duration = Duration::from_secs(30);

/// The time limit of a PING's response. It is longer than [`SILENT`], so that hyper's wait for a response differs from
/// its wait for the next PING.
pub(super) const PONG: Duration = Duration::from_secs(35);

/// The time between two PINGs without a response head between them. Servers require 5 minutes between arrivals.
const APART: Duration = Duration::from_secs(330);

/// The number of times that an upstream can double [`APART`], to almost 6 hours.
const DOUBLINGS: u32 = 6;

/// The number of times that an upstream complained of too many PINGs.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints(Arc<AtomicU32>);

/// The state that decides about the PINGs of a connection.
#[derive(Debug)]
pub(super) struct Pings {
    complaints: Complaints,
    opened: time::Instant,
    /// The number of requests that wait for a response head, and since when, in milliseconds after `opened`.
    waiting: AtomicUsize,
    since: AtomicU64,
    /// The last PING, in milliseconds after `opened`.
    last: AtomicU64,
    /// No PING was sent since the last response's head.
    answered: AtomicBool,
}

/// A request that waits for its response's head.
#[derive(Debug)]
pub(super) struct AwaitingHead(Arc<Pings>);

/// The timer that hyper gets.
#[derive(Clone, Debug)]
pub(super) struct PingTimer(pub(super) Arc<Pings>);

/// A sleep of hyper's timer.
#[derive(Debug)]
struct PingSleep {
    pings: Arc<Pings>,
    inner: Pin<Box<time::Sleep>>,
    waits_for: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A PING may be due when the sleep ends.
    Silence,
    /// A PING may be due when the sleep ends, and no request was waiting at the last check.
    Request,
    /// The PING was sent.
    Pong,
}

// === impl Complaints ===

impl Complaints {
    /// Records that the upstream closed a connection because of PINGs.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether it has complained.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn apart(&self) -> Duration {
        APART * 2u32.pow(self.0.load(Ordering::Relaxed).min(DOUBLINGS))
    }
}

// === impl Pings ===

impl Pings {
    pub(super) fn new(complaints: Complaints) -> Arc<Self> {
        Arc::new(Self {
            complaints,
            opened: time::Instant::now(),
            waiting: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            last: AtomicU64::new(0),
            answered: AtomicBool::new(true),
        })
    }

    /// Records that a request waits for its response head.
    pub(super) fn wait(self: &Arc<Self>) -> AwaitingHead {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since.store(self.now(), Ordering::Relaxed);
        }
        AwaitingHead(Arc::clone(self))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns when the next PING is due if nothing is received before.
    fn due(&self) -> time::Instant {
        let at = |milliseconds| self.opened + Duration::from_millis(milliseconds);
        let quiet = at(self.last.load(Ordering::Relaxed)) + self.complaints.apart();
        if self.is_waiting() && self.answered.load(Ordering::Relaxed) {
            quiet.min(at(self.since.load(Ordering::Relaxed)) + SILENT)
        } else {
            quiet
        }
    }

    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn sent(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
    }
}

// === impl AwaitingHead ===

impl AwaitingHead {
    /// Records that the response head was received.
    pub(super) fn answered(self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }
}

impl Drop for AwaitingHead {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl PingTimer ===

impl PingTimer {
    fn sleep_to(&self, deadline: time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(PingSleep {
            pings: Arc::clone(&self.0),
            inner: Box::pin(time::sleep_until(deadline)),
            waits_for: Event::Silence,
        })
    }
}

impl Timer for PingTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_to(time::Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep_to(deadline.into())
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        let Some(mut sleep) = sleep.as_mut().downcast_mut_pin::<PingSleep>() else {
            return;
        };
        let deadline: time::Instant = deadline.into();
        // The next check of the silence is at most this far away.
        sleep.waits_for = if deadline > time::Instant::now() + SILENT {
            self.0.sent();
            Event::Pong
        } else {
            Event::Silence
        };
        sleep.inner.as_mut().reset(deadline);
    }
}

// === impl PingSleep ===

impl Future for PingSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // If no request waits, this is checked again at the next one: hyper polls the timer with every request.
            let new = this.waits_for == Event::Request && this.pings.is_waiting();
            if !new && this.inner.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = this.pings.due();
            if this.waits_for == Event::Pong || due <= time::Instant::now() {
                return Poll::Ready(());
            }
            this.waits_for = match this.pings.is_waiting() {
                true => Event::Silence,
                false => Event::Request,
            };
            this.inner.as_mut().reset(due);
        }
    }
}

impl Sleep for PingSleep {}
