//! Credential files: what they say, and where Application Default Credentials (ADC) look for them.
//!
//! Nothing here uses the network. Every text is checked when the file is read, so that `check`, the start and a reload
//! report a wrong file as a problem of the configuration. No message shows the content of a file.

mod key;
#[cfg(test)]
pub(crate) use key::tests;

pub use key::{InvalidKey, SigningKey};
