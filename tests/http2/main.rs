//! HTTP/2 through the real binary, frame by frame on both sides: what the app or the service does to a stream reaches
//! the other side.

// A failed assertion must name the place and the value.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod connect;
mod drain;
mod frames;
mod heads;
mod interim;
mod malformed;
mod memory;
mod refused;
mod resets;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod trailers;
mod windows;

use std::net::SocketAddr;

use http::Request;
use support::app::get;
use support::metadata::{Answer, Kind, Metadata};
use support::sidecar::Sidecar;
use support::streams::Streams;

/// The URL of every call. It gets an ID token.
const HOST: &str = "svc.a.run.app";

/// Starts a service, a metadata server with tokens for an hour, and a sidecar between them.
async fn started() -> (Streams, Metadata, Sidecar) {
    let service = Streams::start().await;
    let (metadata, sidecar) = beside(&service, service.address, &[]).await;
    (service, metadata, sidecar)
}

/// Starts a sidecar that finds a service at an address.
async fn beside(service: &Streams, address: SocketAddr, args: &[&str]) -> (Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let flags = service.flags_by(address);
    // The test does not need the log of a thousand streams.
    let quiet = ["--log-level", "info"];
    let args: Vec<&str> = flags
        .iter()
        .map(String::as_str)
        .chain(quiet)
        .chain(args.iter().copied())
        .collect();
    let sidecar = Sidecar::start(&metadata, &args).await;
    (metadata, sidecar)
}

/// Returns a request through the forward proxy.
fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://{HOST}{path}"))
        .body(())
        .unwrap()
}

/// Waits until this number of requests of the forward proxy has ended with this code.
async fn counted(sidecar: &Sidecar, code: &str, count: usize) {
    let wanted = format!(
        "sidentity_requests_total{{code=\"{code}\",credential=\"id\",listener=\"proxy\"}} {count}"
    );
    metric(sidecar, &wanted).await;
}

/// Waits for a line of the metrics.
async fn metric(sidecar: &Sidecar, wanted: &str) {
    let mut metrics = String::new();
    // Each attempt makes a call. The counter changes at most one task switch after the event.
    for _ in 0..2000 {
        let response = get(sidecar.admin(), "/metrics").await;
        metrics = support::app::text(&response).to_owned();
        if metrics.lines().any(|line| line == wanted) {
            return;
        }
    }
    panic!("no {wanted} in {metrics}");
}
