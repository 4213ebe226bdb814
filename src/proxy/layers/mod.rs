//! The layers of the stack, one a file.

pub(crate) mod authorize;
pub(crate) mod connect;
pub(crate) mod decide;
pub(crate) mod forward;
pub(crate) mod hop_by_hop;
pub(crate) mod limit;
pub(crate) mod normalize;
pub(crate) mod record;
pub(crate) mod reject_cross_site;
pub(crate) mod rescue;
pub(crate) mod resolve_service;
pub(crate) mod response_timeout;
pub(crate) mod retry_unauthorized;
pub(crate) mod rewrite_location;
pub(crate) mod upgrade;
