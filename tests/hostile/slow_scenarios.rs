//! Scenarios that take longer than ten seconds, or need privileges: `cargo test --test hostile-long`, as root.
//!
//! They are part of the extended suite.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]
// Both binaries share these modules.
#![allow(dead_code)]

mod flood;
mod observe;
#[path = "../support/mod.rs"]
mod support;
mod wire;

mod idle;
mod names;

use support::metadata::{Answer, Kind, Metadata};
use support::sidecar::Sidecar;

/// Scenarios run one at a time, because each measures latency.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Starts a metadata server whose tokens are valid for an hour, and a sidecar under a program.
async fn started_under(program: &[&str], args: &[&str]) -> (Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let args = [&["--log-level", "info"], args].concat();
    let sidecar = Sidecar::start_under(program, &metadata, &args).await;
    (metadata, sidecar)
}
