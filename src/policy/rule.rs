//! Rules, and the options of rules and routes.

use http::HeaderValue;
use std::sync::Arc;

use super::decision::Credential;
use super::pattern::Pattern;

/// A user's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The destinations that the rule matches.
    pub pattern: Pattern,
    /// The options. `credential` is always set.
    pub options: RuleOptions,
    /// The rule as the user wrote it, for `explain` and messages.
    pub name: Arc<str>,
}

/// The options of a route or a rule. The built-in table supplies those that are not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleOptions {
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
    /// `delegate=`, repeatable, in the order of impersonation.
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

/// `header=`: the header that carries the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMode {
    /// `Authorization` if the app sent none, else another header that the destination accepts.
    #[default]
    Auto,
    /// `Authorization`.
    Authorization,
    /// `X-Serverless-Authorization`.
    XServerlessAuthorization,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
}

/// `existing=`: what to do with an `Authorization` that the app sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Keeps the app's value.
    #[default]
    Keep,
    /// Replaces it with the token.
    Replace,
}

/// `scheme=`: the authentication scheme of the token.
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
    /// Returns the value as written in options.
    pub(crate) const fn as_str(self) -> &'static str {
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
    /// Returns the value as written in options.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Replace => "replace",
        }
    }
}

// === impl AuthScheme ===

impl AuthScheme {
    /// Returns the value as written in options.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
        }
    }
}
