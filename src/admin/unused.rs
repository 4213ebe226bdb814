//! The app that never calls. Its requests may go past the sidecar, which sees none of them: nothing else would say so.

use super::serve::Admin;
use crate::config::Listen;

/// Liveness probes without a single request before the log says so: a few minutes, as probes go.
const PROBES: u32 = 10;

/// Routes that are named.
const ROUTES: usize = 3;

impl Admin {
    /// What to look at while no request has come in at all.
    pub fn unused(&self) -> Option<String> {
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
                "no request has come in so far: if the app has made calls, they went past the sidecar. It must {}",
                ways.join(", or ")
            )
        })
    }

    /// A liveness probe has come; the log says once, after some of them, that nothing else has.
    pub(super) fn probed(&self) {
        if self.lifecycle.probed() == PROBES
            && let Some(unused) = self.unused()
        {
            tracing::info!("{unused}");
        }
    }
}
