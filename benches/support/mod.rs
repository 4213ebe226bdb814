//! The shared parts of the benchmarks: the sidecar in process, a bare hop, an upstream and its certificates.

// Each binary uses only some of these items.
#![allow(dead_code)]

pub mod hop;
pub mod sidecar;
pub mod tls;
pub mod upstream;

/// Any error ends the measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
