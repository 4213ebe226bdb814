//! Rules for header fields and trailers, one file per field or group of fields.
//!
//! The rules hold no state and send nothing. Several layers share them, and tests call them without a stack.

pub(crate) mod browser;
pub(crate) mod grpc;
pub(crate) mod hop_by_hop;
pub(crate) mod host;
pub(crate) mod iap;
pub(crate) mod length;
pub(crate) mod proxy_status;
