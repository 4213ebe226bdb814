//! What a user may write for a route or a rule.

use http::HeaderValue;
use std::sync::Arc;

use super::decision::Credential;
use super::pattern::Pattern;

/// A user's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which destinations.
    pub pattern: Pattern,
    /// What they get; `credential` is always set.
    pub options: Options,
    /// How the user wrote it, for `explain` and messages.
    pub name: Arc<str>,
}

/// The options of a route or a rule; what is not set comes from the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `credential=`.
    pub credential: Option<Credential>,
    /// `audience=`.
    pub audience: Option<String>,
    /// `scope=`, repeatable.
    pub scopes: Vec<String>,
    /// `header=`.
    pub header: Option<HeaderMode>,
    /// `existing=`.
    pub existing: Option<Existing>,
    /// `account=`.
    pub account: Option<String>,
    /// `impersonate=`.
    pub impersonate: Option<String>,
    /// `delegate=`, repeatable, in the order in which they impersonate each other.
    pub delegates: Vec<String>,
    /// `subject=`.
    pub subject: Option<String>,
    /// `token=jwt`.
    pub jwt: bool,
    /// `quota-project=`.
    pub quota_project: Option<HeaderValue>,
    /// `scheme=`.
    pub scheme: Option<AuthScheme>,
    /// `plaintext=allow`.
    pub plaintext: bool,
}

/// `header=`: which header carries the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMode {
    /// `Authorization` where the app sent none, else what the destination takes beside it.
    #[default]
    Auto,
    /// `Authorization`.
    Authorization,
    /// `X-Serverless-Authorization`.
    XServerlessAuthorization,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
}

/// `existing=`: what becomes of an `Authorization` that the app sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stands.
    #[default]
    Keep,
    /// Ours takes its place.
    Replace,
}

/// `scheme=`: how the token is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthScheme {
    /// `Bearer TOKEN` (RFC 6750).
    #[default]
    Bearer,
    /// `Basic`, user `oauth2accesstoken`, the token as password (Artifact Registry).
    Basic,
}

// === impl HeaderMode ===

impl HeaderMode {
    /// As written in options.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Authorization => "authorization",
            Self::XServerlessAuthorization => "x-serverless-authorization",
            Self::ProxyAuthorization => "proxy-authorization",
        }
    }
}

// === impl Existing ===

impl Existing {
    /// As written in options.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Replace => "replace",
        }
    }
}

// === impl AuthScheme ===

impl AuthScheme {
    /// As written in options.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
        }
    }
}
