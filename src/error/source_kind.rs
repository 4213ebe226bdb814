//! The kinds of token source.

/// The kind of a token source: the label `source` of `sidentity_token_fetches_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    /// The metadata server.
    Metadata,
    /// A service account's key: its own signature, or the token endpoint.
    ServiceAccount,
    /// A person's login: the token endpoint.
    AuthorizedUser,
    /// The IAM Credentials API.
    Impersonation,
    /// The Security Token Service.
    Sts,
}

// === impl SourceKind ===

impl SourceKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 5] = [
        Self::Metadata,
        Self::ServiceAccount,
        Self::AuthorizedUser,
        Self::Impersonation,
        Self::Sts,
    ];

    /// Returns the value of the label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::ServiceAccount => "service_account",
            Self::AuthorizedUser => "authorized_user",
            Self::Impersonation => "impersonation",
            Self::Sts => "sts",
        }
    }

    /// Returns the name of the credential in the documentation.
    pub(crate) const fn credential(self) -> &'static str {
        match self {
            Self::Metadata => "metadata server",
            Self::ServiceAccount => "key file",
            Self::AuthorizedUser => "login",
            Self::Impersonation => "impersonation",
            Self::Sts => "federation",
        }
    }

    /// Returns the name of the server in messages.
    pub(crate) const fn server(self) -> &'static str {
        match self {
            Self::Metadata => "metadata server",
            Self::ServiceAccount | Self::AuthorizedUser => "token endpoint",
            Self::Impersonation => "IAM Credentials API",
            Self::Sts => "Security Token Service",
        }
    }
}
