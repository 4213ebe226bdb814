//! The environment of the tests: a scriptable metadata server and token endpoints, honest and hostile upstreams, the
//! app, and the sidecar.

// Each test binary uses only some of these items.
#![allow(dead_code, unreachable_pub)]
// A test that cannot go on must panic.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

pub mod app;
pub mod bulk;
pub mod frames;
pub mod google;
pub mod hostile;
pub mod metadata;
pub mod path;
pub mod proxy;
pub mod service;
pub mod sidecar;
pub mod streams;
pub mod tls;
pub mod upstream;
pub mod wire;
pub mod zeroes;
