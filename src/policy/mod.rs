//! Decides which credential a destination gets: pure functions from a
//! [`Destination`](crate::destination::Destination) to a [`Decision`].
//!
//! The user's rules come first, the more specific before the less specific, then the built-in table. Nothing here does
//! I/O, reads a clock or reads a `Host` header.

mod audience;
mod base;
mod build;
mod builtin;
mod credential_name;
mod decision;
mod egress;
mod evaluate;
mod grants;
mod header;
mod identity;
mod impersonation;
mod listing;
mod machine_scopes;
mod no_proxy;
mod path;
mod pattern;
mod placeholder;
mod principal;
mod reach;
mod resolved_options;
mod rule;
mod rule_options;
mod service;
mod strictest;

pub(crate) use audience::{HostKind, is_client_id, tagged};
pub(crate) use base::{
    BaseCredential, FEDERATED_ID_TOKENS, WORKFORCE_ID_TOKENS, is_gcloud_client, user_id_tokens,
};
pub(crate) use build::{NO_RULE, UNMATCHED_DENY};
pub(crate) use builtin::DEFAULT_UNIVERSE;
pub(crate) use builtin::{FUNCTIONS, RUN_APP, is_google_api, is_under};
pub use credential_name::CredentialName;
pub(crate) use credential_name::{FileChain, ScopeSelection, project_of};
pub(crate) use decision::CLOUD_PLATFORM;
pub use decision::Credential;
pub use decision::CredentialGrant;
pub use decision::Decision;
pub(crate) use decision::SkipReason;
pub use decision::TokenKey;
pub use decision::TokenKind;
pub(crate) use egress::{Bypass, EgressProxy};
pub use evaluate::Policy;
pub use evaluate::Settings;
pub use header::Placement;
pub use header::inject;
pub use header::select_header;
pub use header::strip_redacted;
pub(crate) use header::strip_serverless;
pub use impersonation::Impersonation;
pub(crate) use impersonation::without_own;
pub(crate) use listing::PolicyEntry;
pub(crate) use machine_scopes::{WIDEN, narrow_scopes};
pub(crate) use no_proxy::{NoProxy, NoProxyEntry};
pub(crate) use path::is_below;
pub use pattern::{InvalidPattern, Pattern};
pub(crate) use placeholder::Placeholders;
pub(crate) use principal::Delegated;
pub use principal::Principal;
pub use rule::AuthScheme;
pub use rule::Rule;
pub use rule::RuleOptions;
pub(crate) use rule::{Existing, HeaderMode};
pub(crate) use service::{InvalidService, ServiceLocation, ServiceName, is_region};
