//! What the tests meet: a metadata server that does as it is told.

// Each test binary uses its own part of it.
#![allow(dead_code, unreachable_pub)]

pub mod metadata;
