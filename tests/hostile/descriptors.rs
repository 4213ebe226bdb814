//! A low descriptor limit, and callers who exhaust it.

use std::time::Duration;

use super::ALONE;
use super::flood::{Flood, Reading};
use super::observe::{Bounds, Observer};
use super::support::metadata::Metadata;
use super::support::sidecar::Sidecar;

const LIMIT: &str = "ulimit -n 128 && exec \"$0\" \"$@\"";

const BOUNDS: Bounds = Bounds {
    peak: 64,
    descriptors: 128,
};

/// Opens 188 connections to a listener of a process that may have 128 descriptors.
async fn taken(scenario: &str, listener: &str) {
    let _alone = ALONE.lock().await;
    let metadata = Metadata::start().await;
    let args = ["--log-level", "info"];
    let sidecar = Sidecar::start_under(&["/bin/sh", "-c", LIMIT], &metadata, &args).await;
    let mut flood = Flood::new();
    flood.open(sidecar.address(listener), 188, Reading::Nothing, &b""[..]);
    flood.written(Duration::from_secs(5)).await;
    let observer = Observer::of_both(&sidecar);
    observer.probes(20).await;
    observer.within(scenario, BOUNDS);
    let lines = sidecar.log().len();
    assert!(lines < 60, "{lines} log lines");
}

#[tokio::test]
async fn silent_connections_to_the_admin_port_leave_descriptors_for_calls() {
    taken("128 descriptors, 188 to the admin port", "admin").await;
}

#[tokio::test]
async fn silent_connections_to_the_proxy_leave_descriptors_for_calls() {
    taken("128 descriptors, 188 to the proxy", "proxy").await;
}
