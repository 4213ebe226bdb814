//! The three probes. On an idle Cloud Run instance the sidecar has CPU only during probes, so they refresh stale
//! tokens.

use std::time::Duration;

use http::StatusCode;

use super::serve::Admin;
use crate::proxy::locate_routes;

/// The time limit of a probe, so that refreshes can end while there is CPU. Probes time out after 1 s by default.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// The text of a successful `/liveness`.
pub(crate) const ALIVE: &str = "alive\n";

/// The text of a successful `/readiness`.
pub(crate) const READY: &str = "ready\n";

/// The response to a probe: the status for the prober, and a human-readable text.
pub(super) type ProbeResponse = (StatusCode, String);

/// Answers `/startup`: 200 once the listeners accept.
pub(super) fn startup(admin: &Admin) -> ProbeResponse {
    if admin.lifecycle.is_listening() {
        (StatusCode::OK, "started\n".into())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not listening yet\n".into(),
        )
    }
}

/// Always 200, because a restart of the instance does not help if the metadata server is down.
pub(super) async fn liveness(admin: &Admin) -> ProbeResponse {
    let refresh = admin.provider.tokens().refresh_stale().done(PROBE_TIMEOUT);
    // Requests only unknown facts. A failure does not fail the probe.
    let facts = tokio::time::timeout(PROBE_TIMEOUT, admin.provider.fetch_facts());
    let _ = tokio::join!(refresh, facts);
    admin.probed();
    (StatusCode::OK, ALIVE.into())
}

/// Answers `/readiness`: 200 while every route has its token, otherwise 503 and the reasons.
pub(super) async fn readiness(admin: &Admin) -> ProbeResponse {
    if admin.lifecycle.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    let mut reasons = missing(admin);
    if !reasons.is_empty() {
        // Waits for the fetch that `missing` has started.
        let locate = locate_routes(&admin.provider, &admin.routes);
        let locate = tokio::time::timeout(PROBE_TIMEOUT, locate);
        let refresh = admin.provider.tokens().refresh_stale().done(PROBE_TIMEOUT);
        let _ = tokio::join!(refresh, locate);
        reasons = missing(admin);
    }
    if reasons.is_empty() {
        (StatusCode::OK, READY.into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.concat())
    }
}

fn missing(admin: &Admin) -> Vec<String> {
    if !admin.lifecycle.is_listening() {
        return vec!["not listening yet\n".into()];
    }
    admin
        .routes
        .iter()
        .filter_map(|ingress| {
            let located = ingress
                .service()
                .map(|service| admin.provider.known_location(service));
            let reason = match located {
                None | Some(Some(Ok(_))) => None,
                Some(Some(Err(error))) => Some(error.to_string()),
                Some(None) => {
                    Some("the project number and the region are not known yet".to_owned())
                }
            };
            if let Some(reason) = reason {
                return Some(format!("route {}: {reason}\n", ingress.name));
            }
            let slot = ingress.route()?.decide(&admin.provider)?.slot?;
            if slot.has_token() {
                return None;
            }
            slot.prefetch();
            let reason = slot.status().last_error;
            let reason = reason.as_deref().unwrap_or("token: being fetched");
            Some(format!("route {}: {reason}\n", ingress.name))
        })
        .collect()
}
