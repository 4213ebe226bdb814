//! What each listener has counted, for the status page.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{HistogramVec, IntGaugeVec};

use super::history::latency::LatencyCounts;

/// The counts of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that have ended since the start.
    pub requests: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Requests that failed since the start: errors of the sidecar's own, tokens not taken, and 5xx of upstreams.
    pub errors: u64,
    /// How long they took, but for tunnels.
    pub latencies: LatencyCounts,
}

// === impl Tally ===

impl Tally {
    /// Adds what another listener has counted.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.in_flight += other.in_flight;
        self.connections += other.connections;
        self.errors += other.errors;
        self.latencies.add(&other.latencies);
    }
}

pub(super) fn of(
    durations: &HistogramVec,
    in_flight: &IntGaugeVec,
    connections: &IntGaugeVec,
) -> BTreeMap<String, Tally> {
    let mut tallies = BTreeMap::new();
    each(durations, &mut tallies, |tally, metric| {
        tally.requests += metric.get_histogram().get_sample_count();
    });
    each(in_flight, &mut tallies, |tally, metric| {
        tally.in_flight += whole(metric);
    });
    each(connections, &mut tallies, |tally, metric| {
        tally.connections += whole(metric);
    });
    tallies
}

fn each(
    family: &impl Collector,
    tallies: &mut BTreeMap<String, Tally>,
    add: impl Fn(&mut Tally, &Metric),
) {
    for family in family.collect() {
        for metric in family.get_metric() {
            let labels = metric.get_label();
            if let Some(name) = labels.iter().find(|label| label.name() == "listener") {
                add(tallies.entry(name.value().to_owned()).or_default(), metric);
            }
        }
    }
}

/// Gauges here count things, so they are whole and not negative.
fn whole(metric: &Metric) -> u64 {
    metric.get_gauge().get_value().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::policy::Credential;
    use crate::telemetry::{Code, Metrics};

    #[test]
    fn each_listener_has_its_own_counts_whatever_the_credential_was() {
        let metrics = Metrics::new();
        let (proxy, route) = (metrics.listener("proxy"), metrics.listener("8081"));
        let code = Code::from(StatusCode::OK);
        proxy.request_finished(Credential::Id, code, Duration::ZERO);
        proxy.request_finished(Credential::None, code, Duration::ZERO);
        let _request = route.request_started();
        let _connection = route.connection_opened();
        let tallies = metrics.tallies();
        assert_eq!(
            tallies["proxy"],
            Tally {
                requests: 2,
                ..Tally::default()
            }
        );
        assert_eq!(
            tallies["8081"],
            Tally {
                requests: 0,
                in_flight: 1,
                connections: 1,
                ..Tally::default()
            }
        );
    }
}
