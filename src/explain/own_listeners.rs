//! The rejection of calls that lead to the sidecar itself.

use std::fmt;
use std::sync::Arc;

use crate::destination::Origin;

/// Returns whether a call to an origin leads to one of the listeners.
type LeadsHere = dyn Fn(&Origin) -> bool + Send + Sync;

/// The sidecar's own listeners.
#[derive(Clone, Default)]
pub(crate) struct OwnListeners(Option<Arc<LeadsHere>>);

// === impl OwnListeners ===

impl OwnListeners {
    /// What such a destination is, in messages.
    pub(crate) const DESCRIPTION: &'static str = "a listener of the sidecar itself";

    /// Creates the listeners. `leads_here` is the check with which requests are rejected.
    pub(crate) fn new(leads_here: impl Fn(&Origin) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(leads_here)))
    }

    /// Returns whether a call to the origin is rejected because it leads to one of them.
    pub(super) fn has(&self, origin: &Origin) -> bool {
        self.0.as_ref().is_some_and(|leads_here| leads_here(origin))
    }
}

impl fmt::Debug for OwnListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnListeners").finish_non_exhaustive()
    }
}
