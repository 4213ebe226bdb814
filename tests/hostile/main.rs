//! Attacks on the real binary. Each scenario bounds resident memory, descriptors, and the latency of another caller.
//!
//! Scenarios that take longer than ten seconds or need privileges are in `long.rs`, which `cargo test` does not run.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod flood;
mod observe;
#[path = "../support/mod.rs"]
mod support;
mod wire;

mod admin;
mod bytes;
mod credentials;
mod descriptors;
mod exec;
mod floods;
mod heads;
mod hosts;
mod interim;
mod slow;
mod tokens;

use support::metadata::{Answer, Kind, Metadata};
use support::sidecar::Sidecar;

/// Scenarios run one at a time, because each measures latency.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Starts a metadata server whose tokens are valid for an hour, and a sidecar.
async fn started(args: &[&str]) -> (Metadata, Sidecar) {
    let metadata = Metadata::start().await;
    metadata.script(Kind::Access, [Answer::access("T1", 3600)]);
    metadata.script(Kind::Identity, [Answer::identity(3600)]);
    let args = [&["--log-level", "info"], args].concat();
    let sidecar = Sidecar::start(&metadata, &args).await;
    (metadata, sidecar)
}
