//! Google's token endpoints, as strict as a client under test needs them.

mod aws;
mod bytes;
mod client;
mod command;
mod fixture;
mod iam;
mod iap;
mod oauth;
mod sts;
