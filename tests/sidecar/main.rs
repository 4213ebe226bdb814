//! The sidecar from outside: the real binary on real sockets, with a scripted metadata server and a service behind TLS.

// A failed assertion must name the place and the value.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod admin;
mod budget;
mod calls;
mod commands;
mod connect;
mod deadlines;
mod diagnosis;
mod discover;
mod drain;
mod egress;
mod environment;
mod errors;
mod exec;
mod expect;
mod fairness;
mod floods;
mod forward;
mod framing;
mod heads;
mod hints;
mod hostile;
mod http1;
mod intercept;
mod keepalive;
mod lengths;
mod logs;
mod lookalikes;
mod malformed;
mod methods;
mod metrics;
mod paths;
mod placeholders;
mod pressure;
mod reload;
mod routes;
mod sandbox;
mod shell;
mod status;
mod streams;
mod supervisor;
#[path = "../support/mod.rs"]
mod support;
mod unauthorized;
mod upgrades;
mod workers;

use support::metadata::{Answer, Kind, Metadata};
use support::service::Service;
use support::sidecar::Sidecar;

/// Starts a metadata server with one access token and ID tokens for an hour, an honest service, and a sidecar between
/// them.
async fn started(args: &[&str]) -> (Metadata, Service, Sidecar) {
    let service = Service::start().await;
    let (metadata, sidecar) = started_with(&service, args).await;
    (metadata, service, sidecar)
}

/// Like [`started`], with a service of the test.
async fn started_with(service: &Service, args: &[&str]) -> (Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let sidecar = beside(&metadata, service, args).await;
    (metadata, sidecar)
}

/// Starts a sidecar between these two.
async fn beside(metadata: &Metadata, service: &Service, args: &[&str]) -> Sidecar {
    let flags = service.flags();
    let args: Vec<&str> = flags
        .iter()
        .map(String::as_str)
        .chain(args.iter().copied())
        .collect();
    Sidecar::start(metadata, &args).await
}

/// Returns whether the ID token in a header like `Authorization` is for this audience.
fn is_for(header: Option<&str>, audience: &str) -> bool {
    header
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|token| support::metadata::audience_of(token) == audience)
}
