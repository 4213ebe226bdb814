//! Rules for header fields and trailers.

pub(crate) mod browser;
pub(crate) mod grpc;
pub(crate) mod hop_by_hop;
pub(crate) mod host;
pub(crate) mod iap;
pub(crate) mod length;
pub(crate) mod proxy_status;
