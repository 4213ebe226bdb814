//! Detects an app that sends no request to the sidecar: its calls may bypass it.

use super::serve::Admin;
use crate::config::Listen;

/// The number of liveness probes without a request after which the log says so: a few minutes.
const PROBES: u32 = 10;

/// The number of routes in the message.
const ROUTES: usize = 3;

impl Admin {
    /// Returns advice while no request was received.
    pub(crate) fn unused(&self) -> Option<String> {
        let counts = self.metrics.counts();
        if counts
            .values()
            .any(|counts| counts.requests > 0 || counts.in_flight > 0)
        {
            return None;
        }
        let proxy = self.config.proxy.as_ref();
        let proxy = proxy.map(|proxy| format!("have HTTP_PROXY=http://{}", proxy.listen));
        let routes = self.config.routes.iter().take(ROUTES).map(|route| {
            let address = match &route.listen {
                Listen::Tcp(address) => format!("http://{address}"),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            };
            format!(
                "call {address}{} for {}",
                route.prefix,
                route.upstream_url()
            )
        });
        let ways: Vec<String> = routes.chain(proxy).collect();
        (!ways.is_empty()).then(|| {
            format!(
                "no request was received so far: if the app has sent calls, they bypassed the sidecar. It must {}",
                ways.join(", or ")
            )
        })
    }

    /// Counts a liveness probe. After [`PROBES`] of them without a request, logs advice once.
    pub(super) fn probed(&self) {
        if self.lifecycle.probed() == PROBES
            && let Some(unused) = self.unused()
        {
            tracing::info!("{unused}");
        }
    }
}
