//! Google's token endpoints, as strict as a client under test needs them.

mod client;
mod fixture;
mod iam;
mod oauth;
mod sts;
