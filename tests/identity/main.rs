//! Where the identity comes from: the search for credentials, and the tokens of each kind of credential file.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

#[allow(dead_code)]
#[path = "../emulator/google/client.rs"]
mod client;
mod command;
mod federation;
mod impersonation;
mod metadata_server;
mod search;
mod signed;
#[path = "../support/mod.rs"]
mod support;
