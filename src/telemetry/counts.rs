//! The counts of each listener, for the status page.

use crate::diagnostics::LatencyCounts;

/// The counts of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that have ended since the start.
    pub(crate) requests: u64,
    /// Requests in flight.
    pub(crate) in_flight: u64,
    /// Open connections.
    pub(crate) connections: u64,
    /// Failed requests since the start: errors of the sidecar, rejected tokens, and 5xx responses of upstreams.
    pub(crate) errors: u64,
    /// Durations of requests, without tunnels.
    pub(crate) latencies: LatencyCounts,
}

// === impl Counts ===

impl Counts {
    /// Adds the counts of another listener.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.in_flight += other.in_flight;
        self.connections += other.connections;
        self.errors += other.errors;
        self.latencies.add(&other.latencies);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::policy::Credential;
    use crate::telemetry::{Code, Metrics};

    #[test]
    fn each_listener_has_its_own_counts() {
        let metrics = Metrics::new();
        let (proxy, route) = (metrics.listener("proxy"), metrics.listener("8081"));
        let code = Code::from(StatusCode::OK);
        proxy.request_finished(Credential::Id, code, Duration::ZERO);
        proxy.request_finished(Credential::None, code, Duration::ZERO);
        let _request = route.request_started();
        let _connection = route.connection_opened();
        let counts = metrics.counts();
        assert_eq!(
            counts["proxy"],
            Counts {
                requests: 2,
                ..Counts::default()
            }
        );
        assert_eq!(
            counts["8081"],
            Counts {
                requests: 0,
                in_flight: 1,
                connections: 1,
                ..Counts::default()
            }
        );
    }
}
