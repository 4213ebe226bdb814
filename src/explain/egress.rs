//! How calls leave the sidecar if there is an upstream proxy.

use std::fmt;
use std::sync::Arc;

use crate::destination::Origin;
use crate::policy::Bypass;

/// Returns why an origin bypasses the proxy.
type BypassOf = dyn Fn(&Origin) -> Option<Bypass> + Send + Sync;

/// `--upstream-proxy`.
#[derive(Clone)]
pub(crate) struct Egress {
    /// The proxy's URL without credentials.
    pub(super) proxy: String,
    bypass: Arc<BypassOf>,
}

// === impl Egress ===

impl Egress {
    /// Creates it. `bypass` is the check with which connections are opened.
    pub(crate) fn new(
        proxy: String,
        bypass: impl Fn(&Origin) -> Option<Bypass> + Send + Sync + 'static,
    ) -> Self {
        let bypass = Arc::new(bypass);
        Self { proxy, bypass }
    }

    /// Returns why the origin bypasses the proxy, or `None` if it is called through the proxy.
    pub(super) fn bypass(&self, origin: &Origin) -> Option<Bypass> {
        (self.bypass)(origin)
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}
