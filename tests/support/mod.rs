//! What the tests meet: a metadata server and Google's token endpoints that do as they are told, upstreams honest and
//! hostile, the app, the sidecar.

// Each test binary uses its own part of it.
#![allow(dead_code, unreachable_pub)]
// A test that cannot go on shall panic.
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
