//! What a decision says.

use std::sync::Arc;

use http::HeaderValue;

use super::principal::Principal;
use super::rule::{AuthScheme, Existing, HeaderMode};

/// The scope of a token that is asked for without one, on Cloud Run.
pub(crate) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The kinds of credential, as users write them and metrics label them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An OAuth 2.0 access token.
    Access,
    /// An OpenID Connect ID token for one audience.
    Id,
    /// The call goes as it is.
    None,
    /// The call is refused.
    Deny,
}

/// What is asked of a token's source; two calls with equal keys share a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// Access token or ID token, and what it is for.
    pub kind: TokenKind,
    /// Whose token it is.
    pub principal: Principal,
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An access token; the scopes sorted and without doubles, empty for the account's own.
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

/// The credential itself, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialGrant {
    /// A token; nothing is sent upstream without it.
    Token(TokenKey),
    /// No token; the text says why, for `explain`.
    None(Arc<str>),
    /// The call is refused; the text says why.
    Deny(Arc<str>),
}

/// What a destination gets, in which form, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The credential.
    pub grant: CredentialGrant,
    /// Which header carries it.
    pub header: HeaderMode,
    /// What becomes of an `Authorization` that the app sent.
    pub existing: Existing,
    /// `Bearer`, or `Basic` with the user `oauth2accesstoken`.
    pub scheme: AuthScheme,
    /// The value of `x-goog-user-project` where the app sent none; access tokens only.
    pub quota_project: Option<HeaderValue>,
    /// The user accepts that this token travels in cleartext.
    pub plaintext: bool,
    /// A Google API: API keys, signed URLs and upload sessions in the request stand in for a token.
    pub google_api: bool,
    /// An ID token for a host under `run.app`: no `X-Serverless-Authorization` but ours may reach it.
    pub cloud_run: bool,
    /// An ID token of a person's login. Its audience is an OAuth client id, but not one of IAP.
    pub of_user: bool,
    /// The rule that decided, as a user would recognise it: `built-in *.run.app`, `--rule iap.example.com=id`.
    pub rule: Arc<str>,
    /// What else a person should know, for `explain`.
    pub notes: Vec<Arc<str>>,
}

/// Why a destination that is due a token gets none in this request; the label of `sidentity_skipped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The app sent a credential of its own, in `Authorization` or in the query, which stands.
    Existing,
    /// The request carries an API key.
    ApiKey,
    /// The URL is signed.
    SignedUrl,
    /// The URL is a resumable upload's session.
    UploadSession,
    /// A TRACE request: its echo would show the token to the app.
    Trace,
    /// A blind tunnel: nothing can be put into it.
    Tunnel,
}

// === impl Credential ===

impl Credential {
    /// As written in options, `explain` and metrics.
    pub const fn as_str(self) -> &'static str {
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
    /// The scopes of an access token, separated by spaces; `cloud-platform` where none were asked for, as on Cloud Run.
    pub fn scopes(&self) -> Option<String> {
        match &self.kind {
            TokenKind::Access { scopes } if scopes.is_empty() => Some(CLOUD_PLATFORM.to_owned()),
            TokenKind::Access { scopes } => Some(scopes.join(" ")),
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => None,
        }
    }

    /// The audience of an ID token or a signed JWT.
    pub fn audience(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Access { .. } => None,
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => Some(audience),
        }
    }

    /// [`Credential::Access`] or [`Credential::Id`].
    pub const fn credential(&self) -> Credential {
        match self.kind {
            TokenKind::Access { .. } => Credential::Access,
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => Credential::Id,
        }
    }
}

// === impl Decision ===

impl Decision {
    /// The call goes as it is, or not at all.
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

    /// The kind of credential that was decided on.
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
    /// Every reason, so that each has its metric from the start.
    pub const ALL: [Self; 6] = [
        Self::Existing,
        Self::ApiKey,
        Self::SignedUrl,
        Self::UploadSession,
        Self::Trace,
        Self::Tunnel,
    ];

    /// Why, for people.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Existing => "the app sent a credential of its own, which stands",
            Self::ApiKey => "it carries an API key, which stands in for one",
            Self::SignedUrl => "it is signed, which stands in for one",
            Self::UploadSession => {
                "it is the session of a resumable upload, which stands in for one"
            }
            Self::Trace => "the answer to TRACE would show it to the app",
            Self::Tunnel => "nothing can be put into a blind tunnel",
        }
    }

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
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
