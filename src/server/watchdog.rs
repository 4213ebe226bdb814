//! Enforces the deadlines of one connection.
//!
//! The watchdog is polled after the connection, in the same task. It arms a timer only if a deadline is pending, and
//! does not reset it for each request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection_limits::{IdleTimeout, ServerLimits};
use super::io::ClientProtocol;
use crate::proxy::ConnectionState;

/// How often a connection with a request in progress is checked for a client that is gone.
const CLIENT_CHECK: Duration = Duration::from_secs(5);

/// How long an idle connection may stay open after graceful shutdown began.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// What to do with a connection that missed a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadlineAction {
    /// A deadline has passed. The connection is closed at once.
    Close,
    /// The connection is shut down gracefully: requests in progress go on.
    ShutDown,
}

/// The deadlines and the timer of a connection. See the module.
#[derive(Debug)]
pub(super) struct Watchdog {
    state: Arc<ConnectionState>,
    head: Duration,
    answer: Duration,
    /// The idle timeout, which applies after the first head.
    idle: Option<IdleTimeout>,
    /// The idle timeout when the timer was set. A reload may change it.
    known_idle: Option<Duration>,
    /// When the client is checked next. It stays when the connection becomes idle, so that requests do not set timers.
    check_at: Option<Instant>,
    /// Whether later heads have a deadline (HTTP/1.1).
    limits_later_heads: bool,
    /// Since when a later head has been incomplete.
    partial_head: Option<Instant>,
    /// Since when the client has not read the response.
    unread: Option<Instant>,
    /// When graceful shutdown began.
    shut_down: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Watchdog ===

impl Watchdog {
    pub(super) fn new(state: Arc<ConnectionState>, limits: &ServerLimits) -> Self {
        Self {
            state,
            head: limits.head,
            answer: limits.answer,
            idle: None,
            known_idle: None,
            check_at: None,
            limits_later_heads: false,
            partial_head: None,
            unread: None,
            shut_down: None,
            timer: None,
        }
    }

    /// Sets the protocol and its idle timeout.
    pub(super) fn set_protocol(&mut self, protocol: ClientProtocol, idle: Option<IdleTimeout>) {
        self.idle = idle;
        self.limits_later_heads = protocol == ClientProtocol::Http1;
    }

    /// Records that graceful shutdown began.
    pub(super) fn shutting_down(&mut self) {
        self.shut_down.get_or_insert_with(Instant::now);
    }

    /// Returns ready when a deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DeadlineAction> {
        let state = &self.state;
        // The pool of an app would reuse the connection, and each request would be refused.
        let useless = state.is_refused() && state.has_head();
        if (useless || state.holds_idle_head_buffer()) && self.shut_down.is_none() {
            return Poll::Ready(DeadlineAction::ShutDown);
        }
        if self.state.is_client_gone() {
            return Poll::Ready(DeadlineAction::Close);
        }
        loop {
            let Some((deadline, verdict)) = self.deadline() else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = match &mut self.timer {
                // A timer that fires early costs less than setting one for each request.
                Some(timer) if timer.deadline() <= deadline => timer,
                Some(timer) => {
                    timer.as_mut().reset(deadline);
                    timer
                }
                None => self
                    .timer
                    .insert(Box::pin(tokio::time::sleep_until(deadline))),
            };
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            if self.check_at.take_if(|at| *at <= Instant::now()).is_some() && !self.state.is_idle()
            {
                // The connection checks at its next poll.
                self.state.request_check();
                cx.waker().wake_by_ref();
            }
            if let Some(verdict) = verdict
                && Instant::now() >= deadline
            {
                return Poll::Ready(verdict);
            }
        }
    }

    /// Returns the next time to check, and the verdict if the state has not changed by then.
    fn deadline(&mut self) -> Option<(Instant, Option<DeadlineAction>)> {
        let state = &self.state;
        let idle = self.idle.as_ref().map(IdleTimeout::get);
        if !state.has_head() {
            let end = match self.shut_down {
                Some(since) => since + SHUTDOWN_GRACE,
                None => state.opened() + self.head,
            };
            return Some((end, Some(DeadlineAction::Close)));
        }
        if idle != self.known_idle {
            // The timer is set for the first head, or for the previous configuration.
            self.known_idle = idle;
            self.timer = None;
        }
        let is_partial = self.limits_later_heads && state.is_idle() && state.is_reading_head();
        let head_due =
            since_when(&mut self.partial_head, is_partial).map(|since| since + self.head);
        let unread_since = since_when(&mut self.unread, state.is_unread());
        let read_due = unread_since.map(|since| since + self.answer);
        let first_due = head_due.into_iter().chain(read_due).min();
        let close = first_due.map(|at| (at, Some(DeadlineAction::Close)));
        let idle_check = match (self.shut_down, idle) {
            (Some(since), _) if state.is_idle() => {
                let end = since.max(state.idle_since()) + SHUTDOWN_GRACE;
                Some((end, Some(DeadlineAction::Close)))
            }
            (Some(_), _) => Some((self.recheck_at(SHUTDOWN_GRACE), None)),
            (None, Some(_)) if head_due.is_some() => None,
            (None, Some(idle)) if state.is_idle() => {
                Some((state.idle_since() + idle, Some(DeadlineAction::ShutDown)))
            }
            (None, Some(idle)) => Some((self.recheck_at(idle), None)),
            (None, None) => None,
        };
        if self.limits_later_heads && !state.is_idle() {
            self.check_at
                .get_or_insert_with(|| Instant::now() + CLIENT_CHECK);
        }
        let client_check = self.check_at.map(|at| (at, None));
        close
            .into_iter()
            .chain(idle_check)
            .chain(client_check)
            .min_by_key(|(at, _)| *at)
    }

    /// Returns the time after `wait`, or the time of the timer that is set already.
    fn recheck_at(&self, wait: Duration) -> Instant {
        match &self.timer {
            Some(timer) => timer.deadline(),
            None => Instant::now() + wait,
        }
    }
}

/// Returns since when a condition holds without interruption.
fn since_when(slot: &mut Option<Instant>, is_so: bool) -> Option<Instant> {
    if is_so {
        slot.get_or_insert_with(Instant::now);
    } else {
        *slot = None;
    }
    *slot
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::config::{self, Env, OptionKey, RawConfig};
    use crate::memory::Memory;
    use crate::proxy::Connections;

    const HEAD: Duration = Duration::from_secs(30);
    const IDLE: Duration = Duration::from_secs(90);

    fn watched() -> (Arc<ConnectionState>, Watchdog) {
        let mut raw = RawConfig::default();
        raw.set_flag(OptionKey::Proxy, ["127.0.0.1:0".to_owned()]);
        let config = config::load(&raw, &Env::default()).unwrap();
        let state = ConnectionState::new(Connections::new(1, Memory::default()));
        let watchdog = Watchdog::new(state.clone(), &ServerLimits::of(&config));
        (state, watchdog)
    }

    async fn verdict(watchdog: &mut Watchdog) -> (DeadlineAction, Duration) {
        let began = Instant::now();
        let verdict = poll_fn(|cx| watchdog.poll(cx)).await;
        (verdict, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_head_is_closed() {
        let (state, mut watchdog) = watched();
        watchdog.set_protocol(ClientProtocol::Http2, Some(IdleTimeout::new(IDLE)));
        state.received(b"GET");
        assert_eq!(verdict(&mut watchdog).await, (DeadlineAction::Close, HEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_gracefully_then_at_once() {
        let (state, mut watchdog) = watched();
        watchdog.set_protocol(ClientProtocol::Http2, Some(IdleTimeout::new(IDLE)));
        let first = state.begin();
        let soon = tokio::time::timeout(10 * IDLE, verdict(&mut watchdog)).await;
        assert!(soon.is_err(), "a request is in progress: {soon:?}");
        drop(first);
        tokio::time::advance(IDLE / 2).await;
        drop(state.begin());
        assert_eq!(
            verdict(&mut watchdog).await,
            (DeadlineAction::ShutDown, IDLE)
        );
        watchdog.shutting_down();
        assert_eq!(
            verdict(&mut watchdog).await,
            (DeadlineAction::Close, SHUTDOWN_GRACE)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_http1_connection_may_be_idle_between_requests_but_not_within_a_head() {
        let (state, mut watchdog) = watched();
        watchdog.set_protocol(ClientProtocol::Http1, None);
        drop(state.begin());
        let soon = tokio::time::timeout(10 * IDLE, verdict(&mut watchdog)).await;
        assert!(soon.is_err(), "{soon:?}");
        state.received(b"GET");
        assert_eq!(verdict(&mut watchdog).await, (DeadlineAction::Close, HEAD));
    }
}
