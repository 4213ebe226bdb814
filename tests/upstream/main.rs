//! Requests to an upstream: real sockets, real TLS, honest and hostile upstreams.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod cancel;
mod client;
mod dialing;
mod early;
mod http1;
mod http2;
mod idle;
mod limits;
mod parked;
mod ping;
mod protocol;
mod retry;
mod storm;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod upgrade;
mod via_proxy;
