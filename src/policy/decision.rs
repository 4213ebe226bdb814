//! The result of the policy.

use std::sync::Arc;

use http::HeaderValue;

use super::principal::Principal;
use super::rule::{AuthScheme, Existing, HeaderMode};

/// The scope of a token that is requested without scopes, on Cloud Run.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The kinds of credential, as users write them and metrics label them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An OAuth 2.0 access token.
    Access,
    /// An OpenID Connect ID token for one audience.
    Id,
    /// No credential is added.
    None,
    /// The call is rejected.
    Deny,
}

/// The key of a token. Calls with equal keys share a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The kind of token, with its scopes or audience.
    pub kind: TokenKind,
    /// The identity that the token is issued to.
    pub principal: Principal,
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An access token. The scopes are sorted and without duplicates; none means the account's default scopes.
    Access {
        /// OAuth 2.0 scopes.
        scopes: Arc<[Arc<str>]>,
    },
    /// An ID token.
    Id {
        /// The `aud` claim, exactly.
        audience: Arc<str>,
    },
    /// A JWT that the account signs itself, for Identity-Aware Proxy (`token=jwt`). It counts as an ID token.
    Jwt {
        /// The `aud` claim, exactly.
        audience: Arc<str>,
    },
}

/// The token that a decision grants, or the reason for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialGrant {
    /// A token. The request is not sent upstream without it.
    Token(TokenKey),
    /// No token, with the reason for `explain`.
    None(Arc<str>),
    /// The call is rejected, with the reason.
    Deny(Arc<str>),
}

/// The decision for a destination: the credential, its form, and the rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The credential.
    pub grant: CredentialGrant,
    /// The header that carries it.
    pub(crate) header: HeaderMode,
    /// What to do with an `Authorization` that the app sent.
    pub(crate) existing: Existing,
    /// `Bearer`, or `Basic` with the user `oauth2accesstoken`.
    pub(crate) scheme: AuthScheme,
    /// The value of `x-goog-user-project` if the app sent none. Only for access tokens.
    pub(crate) quota_project: Option<HeaderValue>,
    /// The user allows this token to be sent in cleartext.
    pub(crate) plaintext: bool,
    /// The destination is a Google API. API keys, signed URLs and upload sessions in a request replace the token.
    pub(crate) google_api: bool,
    /// An ID token for a host under `run.app`. The app's `X-Serverless-Authorization` must not reach it.
    pub cloud_run: bool,
    /// An ID token of a person's login. Its audience is an OAuth client id, but not one of IAP.
    pub(crate) of_user: bool,
    /// The rule that decided, as the user wrote it or by its built-in name: `built-in *.run.app`, `--rule
    /// iap.example.com=id`.
    pub(crate) rule: Arc<str>,
    /// Notes for `explain`.
    pub(crate) notes: Vec<Arc<str>>,
}

/// The reason that a request is sent without the token of its destination. The label of `sidentity_skipped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The app sent its own credential, in `Authorization` or in the query.
    Existing,
    /// The request carries an API key.
    ApiKey,
    /// The URL is signed.
    SignedUrl,
    /// The URL is a resumable upload's session.
    UploadSession,
    /// A TRACE request. Its response would show the token to the app.
    Trace,
    /// A tunnel whose bytes are not read.
    Tunnel,
}

// === impl Credential ===

impl Credential {
    /// Returns the value as written in options, `explain` and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Id => "id",
            Self::None => "none",
            Self::Deny => "deny",
        }
    }
}

// === impl TokenKey ===

impl TokenKey {
    /// Returns the scopes of an access token, separated by spaces. Without scopes it is `cloud-platform`, as on Cloud
    /// Run.
    pub(crate) fn scopes(&self) -> Option<String> {
        match &self.kind {
            TokenKind::Access { scopes } if scopes.is_empty() => Some(CLOUD_PLATFORM.to_owned()),
            TokenKind::Access { scopes } => Some(scopes.join(" ")),
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => None,
        }
    }

    /// Returns the audience of an ID token or a signed JWT.
    pub(crate) fn audience(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Access { .. } => None,
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => Some(audience),
        }
    }

    /// Returns [`Credential::Access`] or [`Credential::Id`].
    pub(crate) const fn credential(&self) -> Credential {
        match self.kind {
            TokenKind::Access { .. } => Credential::Access,
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => Credential::Id,
        }
    }
}

// === impl Decision ===

impl Decision {
    /// Creates a decision that grants no token.
    pub(super) fn without_token(grant: CredentialGrant, rule: Arc<str>) -> Self {
        Self {
            grant,
            header: HeaderMode::Auto,
            existing: Existing::Keep,
            scheme: AuthScheme::Bearer,
            quota_project: None,
            plaintext: false,
            google_api: false,
            cloud_run: false,
            of_user: false,
            rule,
            notes: Vec::new(),
        }
    }

    /// Returns the kind of credential.
    pub const fn credential(&self) -> Credential {
        match &self.grant {
            CredentialGrant::Token(key) => key.credential(),
            CredentialGrant::None(_) => Credential::None,
            CredentialGrant::Deny(_) => Credential::Deny,
        }
    }
}

// === impl SkipReason ===

impl SkipReason {
    /// Every reason, so that each metric exists from the start.
    pub(crate) const ALL: [Self; 6] = [
        Self::Existing,
        Self::ApiKey,
        Self::SignedUrl,
        Self::UploadSession,
        Self::Trace,
        Self::Tunnel,
    ];

    /// Returns the reason for messages.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Existing => "the app sent its own credential, which is kept",
            Self::ApiKey => "it carries an API key instead of a token",
            Self::SignedUrl => "it is signed, and needs no token",
            Self::UploadSession => "it is the session of a resumable upload, and needs no token",
            Self::Trace => "the response to TRACE would show the token to the app",
            Self::Tunnel => "no token can be added inside a blind tunnel",
        }
    }

    /// Returns the metric's label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::ApiKey => "api_key",
            Self::SignedUrl => "signed_url",
            Self::UploadSession => "upload_session",
            Self::Trace => "trace",
            Self::Tunnel => "tunnel",
        }
    }
}
