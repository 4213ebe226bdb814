//! What a request meets on its way to an upstream: real sockets, real TLS, honest upstreams and hostile ones.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod support;

#[path = "upstream/cancel.rs"]
mod cancel;
#[path = "upstream/client.rs"]
mod client;
#[path = "upstream/dialing.rs"]
mod dialing;
#[path = "upstream/early.rs"]
mod early;
#[path = "upstream/http1.rs"]
mod http1;
#[path = "upstream/http2.rs"]
mod http2;
#[path = "upstream/idle.rs"]
mod idle;
#[path = "upstream/limits.rs"]
mod limits;
#[path = "upstream/ping.rs"]
mod ping;
#[path = "upstream/protocol.rs"]
mod protocol;
#[path = "upstream/retry.rs"]
mod retry;
#[path = "upstream/storm.rs"]
mod storm;
#[path = "upstream/streaming.rs"]
mod streaming;
#[path = "upstream/tls.rs"]
mod tls;
#[path = "upstream/upgrade.rs"]
mod upgrade;
#[path = "upstream/via_proxy.rs"]
mod via_proxy;
