//! Which credential a destination gets: pure functions from a [`Destination`](crate::destination::Destination) to a
//! [`Decision`].
//!
//! The user's rules come first, more specific before less, then the built-in table. Nothing here does I/O, reads a
//! clock or looks at a `Host` header.

mod audience;
mod base;
mod builtin;
mod decide;
mod decision;
mod egress;
mod grants;
mod header;
mod identity;
mod impersonation;
mod issue;
mod listing;
mod no_proxy;
mod options;
mod path;
mod pattern;
mod placeholder;
mod principal;
mod reach;
mod rule;
mod service;
mod strictest;
mod terms;

pub(crate) use audience::{Shape, is_client_id, tagged};
pub use base::{BaseCredential, CredentialName, FEDERATED_ID_TOKENS, USER_ID_TOKENS};
pub use builtin::DEFAULT_UNIVERSE;
pub(crate) use builtin::{FUNCTIONS, RUN_APP, is_google_api, is_under};
pub use decide::{Policy, Settings};
pub(crate) use decision::CLOUD_PLATFORM;
pub use decision::{Credential, Decision, Grant, SkipReason, TokenKey, TokenKind};
pub use egress::{Bypass, EgressProxy};
pub use header::{Placement, X_SERVERLESS_AUTHORIZATION, inject, place, remove_dead};
pub use impersonation::Impersonation;
pub(crate) use issue::{NO_RULE, UNMATCHED_DENY};
pub use listing::Line;
pub use no_proxy::{NoProxy, NoProxyEntry};
pub use options::InvalidValue;
pub(crate) use path::is_below;
pub use pattern::{InvalidPattern, Pattern};
pub use placeholder::Placeholders;
pub use principal::{Delegated, Impersonated, Principal};
pub use reach::Beyond;
pub use rule::{AuthScheme, Existing, HeaderMode, Options, Rule};
pub use service::{Home, InvalidService, ServiceName, is_region};
