//! The idle HTTP/1.1 connections of a target.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::IDLE_CHECK_AFTER;
use super::h1::Http1Connection;
use super::parked::ParkedConnection;
use crate::upstream::cancellable_body::SendableBody;
use crate::upstream::idle_since::IdleSince;

/// Idle connections. The most recently used is on top, because it is the most likely to be open. Unused ones sink, are
/// parked, and expire.
pub(super) struct IdleStack<B>(Vec<(IdleConnection<B>, IdleSince)>);

/// A connection that waits for its next request.
pub(super) enum IdleConnection<B> {
    Open(Arc<Http1Connection<B>>),
    Parked(Box<ParkedConnection<B>>),
}

// === impl IdleStack ===

impl<B: SendableBody> IdleStack<B> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps a connection, unless `max_idle` are already kept.
    pub(super) fn push(&mut self, connection: Arc<Http1Connection<B>>, max_idle: usize) {
        if self.0.len() < max_idle {
            self.0
                .push((IdleConnection::Open(connection), IdleSince::now()));
        }
    }

    /// Returns the most recently used connection that is open and idle for less than `max_age`. The flag is set if it
    /// must be checked for a close by the upstream.
    pub(super) fn pop(&mut self, max_age: Duration) -> Option<(IdleConnection<B>, bool)> {
        self.pop_if(max_age, |_| true)
    }

    /// Like [`IdleStack::pop`], but returns `None` if that connection is parked.
    pub(super) fn pop_open(
        &mut self,
        max_age: Duration,
    ) -> Option<(Arc<Http1Connection<B>>, bool)> {
        match self.pop_if(max_age, |top| matches!(top, IdleConnection::Open(_)))? {
            (IdleConnection::Open(connection), needs_check) => Some((connection, needs_check)),
            (IdleConnection::Parked(_), _) => None,
        }
    }

    fn pop_if(
        &mut self,
        max_age: Duration,
        wanted: impl Fn(&IdleConnection<B>) -> bool,
    ) -> Option<(IdleConnection<B>, bool)> {
        while let Some((connection, since)) = self.0.pop_if(|(top, _)| wanted(top)) {
            let age = since.age();
            if age >= max_age {
                // All connections below are idle for longer.
                self.0.clear();
            } else if connection.is_ready() {
                return Some((connection, age >= IDLE_CHECK_AFTER));
            }
        }
        None
    }

    /// Parks connections that are idle for at least `park`. Drops those that are closed, or idle for at least `age`.
    pub(super) fn expire(&mut self, park: Duration, age: Duration) {
        self.0 = mem::take(&mut self.0)
            .into_iter()
            .filter(|(connection, since)| since.age() < age && !connection.is_closed())
            .map(|(connection, since)| {
                let due = since.age() >= park;
                (if due { connection.park() } else { connection }, since)
            })
            .collect();
    }

    /// Closes connections that became idle at this time or before, for the limit of idle connections to all upstreams.
    pub(super) fn close_until(&mut self, time: &IdleSince) {
        self.0.retain(|(_, since)| !since.is_until(time));
    }

    /// Returns the time at which each connection became idle.
    pub(super) fn times(&self) -> impl Iterator<Item = IdleSince> {
        self.0.iter().map(|(_, since)| *since)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl IdleConnection ===

impl<B: SendableBody> IdleConnection<B> {
    /// Parks the connection. One that cannot be parked stays as it is.
    fn park(self) -> Self {
        match self {
            Self::Open(connection) => match Http1Connection::park(connection) {
                Ok(parked) => Self::Parked(Box::new(parked)),
                Err(connection) => Self::Open(connection),
            },
            parked @ Self::Parked(_) => parked,
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Open(connection) => connection.is_ready(),
            Self::Parked(connection) => !connection.is_closed(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Open(connection) => connection.is_closed(),
            Self::Parked(connection) => connection.is_closed(),
        }
    }
}
