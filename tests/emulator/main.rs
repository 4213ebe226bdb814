//! The emulator: the metadata server for development, and Google's token endpoints.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod google;
mod metadata;
#[path = "../support/mod.rs"]
mod support;
