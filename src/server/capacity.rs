//! Makes capacity for a new connection, by closing another one if necessary.

use super::accept::{ConnectionClass, GRACE, Server};
use super::evictable::Eviction;

/// The descriptors that the process needs in addition to those of connections: listeners, the runtime, pipes.
const OWN_DESCRIPTORS: usize = 16;

/// Whether a new connection can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    Available,
    /// Its requests are answered with 503.
    Exhausted,
}

// === impl Server ===

impl Server {
    /// Closes a connection that is not admitted yet, or an idle one, if there is no room for another connection.
    pub(super) async fn evict_for(&self, class: ConnectionClass, descriptor: usize) -> Capacity {
        // The number alone is not enough: lower numbers become free again while higher ones stay in use.
        let scarce = class != ConnectionClass::Admin
            && (descriptor >= self.limits.descriptors || self.is_out_of_descriptors());
        while scarce || self.is_full(class) {
            match self.evict(class) {
                // Returns at once: in a flood, each yield delays the connections behind this one. The grace of
                // `EvictableSet` is the time in which earlier connections are read.
                Eviction::Closed if scarce && self.is_out_of_descriptors() => {
                    return Capacity::Exhausted;
                }
                Eviction::Closed => return Capacity::Available,
                Eviction::TooYoung(wait) => tokio::time::sleep(wait).await,
                Eviction::Empty if scarce && self.served.evict_idle() != Eviction::Closed => {
                    return Capacity::Exhausted;
                }
                Eviction::Empty => return Capacity::Available,
            }
        }
        Capacity::Available
    }

    /// Returns whether apps hold all descriptors but those kept for upstreams and the admin port.
    fn is_out_of_descriptors(&self) -> bool {
        let open = self.waiting.len() + self.unauthenticated.len() + self.served.len();
        let most = self.limits.descriptors;
        open >= most - OWN_DESCRIPTORS.min(most / 2)
    }

    pub(super) fn is_full(&self, class: ConnectionClass) -> bool {
        match class {
            ConnectionClass::Admin => self.admin.len() >= self.limits.admin_connections,
            ConnectionClass::Unauthenticated => {
                self.unauthenticated.len() >= self.limits.unauthenticated
            }
            ConnectionClass::Unidentified => false,
            ConnectionClass::App => {
                let open = self.connections.admitted() + self.waiting.len();
                open >= self.limits.connections.saturating_add(GRACE)
            }
        }
    }

    pub(super) fn evict(&self, class: ConnectionClass) -> Eviction {
        let (first, second) = match class {
            ConnectionClass::Admin => return self.admin.evict(),
            ConnectionClass::App => (&self.waiting, &self.unauthenticated),
            ConnectionClass::Unauthenticated | ConnectionClass::Unidentified => {
                (&self.unauthenticated, &self.waiting)
            }
        };
        match first.evict() {
            Eviction::Empty => second.evict(),
            eviction => eviction,
        }
    }
}
