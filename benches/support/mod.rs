//! What the measurements share: the sidecar in process, a bare hop, an upstream and certificates for it.

// Each binary uses its own part of it.
#![allow(dead_code)]

pub mod hop;
pub mod sidecar;
pub mod tls;
pub mod upstream;

/// Whatever goes wrong ends the measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
