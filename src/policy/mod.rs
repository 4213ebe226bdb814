//! Which credential a destination gets: pure functions from a [`Destination`](crate::destination::Destination) to a
//! [`Decision`].
//!
//! The user's rules come first, more specific before less, then the built-in table. Nothing here does I/O, reads a
//! clock or looks at a `Host` header.

mod decision;
mod options;
mod path;
mod pattern;
mod rule;

pub use decision::{Credential, Decision, Grant, SkipReason, TokenKey, TokenKind};
pub use options::InvalidValue;
pub use pattern::{InvalidPattern, Pattern};
pub use rule::{AuthScheme, Existing, HeaderMode, Options, Rule};
