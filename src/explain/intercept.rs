//! The interception of TLS, as explanations need it.

use std::fmt;
use std::sync::Arc;

use crate::destination::Host;

/// Returns whether the CA may sign for a host.
type Covers = dyn Fn(&Host) -> bool + Send + Sync;

/// `--intercept`: the forward proxy terminates the TLS of destinations that get a token. The default is `off`.
#[derive(Clone, Default)]
pub(crate) struct Intercept(Option<Arc<Covers>>);

// === impl Intercept ===

impl Intercept {
    /// Interception is on. `covers` is the check with which tunnels are intercepted.
    pub(crate) fn on(covers: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(covers)))
    }

    /// Interception by a CA that will be created at the start, for every name that gets a token then.
    pub(crate) fn at_start() -> Self {
        Self::on(|host| host.name().is_some())
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether a tunnel to the host is intercepted if the host gets a token.
    pub(super) fn covers(&self, host: &Host) -> bool {
        self.0.as_ref().is_some_and(|covers| covers(host))
    }
}

impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Intercept").field(&self.is_on()).finish()
    }
}
