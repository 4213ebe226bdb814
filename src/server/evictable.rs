//! Sets of open connections. When there is no room for a new connection, an old one is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::proxy::ConnectionState;

/// A bounded set of connections, oldest first.
#[derive(Debug)]
pub(super) struct EvictableSet {
    grace: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    connections: BTreeMap<u64, Arc<ConnectionState>>,
}

/// An entry of the set. It is removed when it is dropped.
#[derive(Debug)]
pub(super) struct EvictableEntry {
    set: Arc<EvictableSet>,
    id: u64,
}

/// The result of an attempt to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// A connection closes.
    Closed,
    /// The oldest connection is too young. It may be closed after this time.
    TooYoung(Duration),
    /// There is no connection to close.
    Empty,
}

// === impl EvictableSet ===

impl EvictableSet {
    /// Creates an empty set. A connection younger than `grace` is not closed, because its request may be in transit.
    pub(super) fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            grace,
            taken: Mutex::default(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.taken().connections.len()
    }

    pub(super) fn take(self: &Arc<Self>, connection: &Arc<ConnectionState>) -> EvictableEntry {
        let mut taken = self.taken();
        let id = taken.next;
        taken.next += 1;
        taken.connections.insert(id, connection.clone());
        EvictableEntry {
            set: self.clone(),
            id,
        }
    }

    /// Closes the oldest connection without a request in progress, else the oldest one.
    pub(super) fn evict(&self) -> Eviction {
        let now = Instant::now();
        let mut taken = self.taken();
        let idle = taken.connections.iter().find(|(_, state)| !state.is_busy());
        let Some((id, state)) = idle.or_else(|| taken.connections.first_key_value()) else {
            return Eviction::Empty;
        };
        let age = now.saturating_duration_since(state.opened());
        if age < self.grace {
            return Eviction::TooYoung(self.grace - age);
        }
        let id = *id;
        state.evict();
        taken.connections.remove(&id);
        Eviction::Closed
    }

    /// Closes the oldest idle connection.
    pub(super) fn evict_idle(&self) -> Eviction {
        let now = Instant::now();
        let mut taken = self.taken();
        let waits = |state: &ConnectionState| {
            state.is_idle()
                && !state.is_reading_head()
                && !state.is_write_blocked()
                && now.saturating_duration_since(state.idle_since()) >= self.grace
        };
        let mut connections = taken.connections.iter();
        let Some((id, state)) = connections.find(|(_, state)| waits(state)) else {
            return Eviction::Empty;
        };
        let id = *id;
        state.evict();
        taken.connections.remove(&id);
        Eviction::Closed
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }
}

impl Drop for EvictableEntry {
    fn drop(&mut self) {
        self.set.taken().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::proxy::Connections;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_idle_connection_is_closed_first() {
        let connections = Connections::new(8, Memory::default());
        let set = EvictableSet::new(Duration::from_millis(10));
        assert_eq!(set.evict(), Eviction::Empty);
        let states: Vec<_> = (0..3)
            .map(|_| ConnectionState::new(connections.clone()))
            .collect();
        let held: Vec<_> = states.iter().map(|state| set.take(state)).collect();
        assert_eq!(set.evict(), Eviction::TooYoung(Duration::from_millis(10)));
        tokio::time::advance(Duration::from_millis(10)).await;
        let busy = states[0].begin();
        assert_eq!(set.evict(), Eviction::Closed);
        states[1].evicted().await;
        drop(held);
        assert_eq!(set.len(), 0);
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed() {
        let connections = Connections::new(8, Memory::default());
        let set = EvictableSet::new(Duration::from_millis(10));
        let states = [(); 3].map(|()| ConnectionState::new(connections.clone()));
        let _held = states.each_ref().map(|state| set.take(state));
        let _busy = states[0].begin();
        assert_eq!(set.evict_idle(), Eviction::Empty);
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(set.evict_idle(), Eviction::Closed);
        states[1].evicted().await;
        drop(states[2].begin());
        assert_eq!(set.evict_idle(), Eviction::Empty);
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(set.evict_idle(), Eviction::Closed);
        states[2].evicted().await;
        assert_eq!(set.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_connection_is_closed_if_all_are_busy() {
        let connections = Connections::new(8, Memory::default());
        let set = EvictableSet::new(Duration::ZERO);
        let states = [(); 2].map(|()| ConnectionState::new(connections.clone()));
        let _held = states.each_ref().map(|state| set.take(state));
        let _busy = states.each_ref().map(ConnectionState::begin);
        assert_eq!(set.evict(), Eviction::Closed);
        states[0].evicted().await;
        assert_eq!(set.len(), 1);
    }
}
