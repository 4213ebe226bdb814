//! The reasons for a missing token.

use super::{Error, ErrorKind, Problem, SourceKind};

/// The reason that a fetch returned no token. Each fault has its own advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// The fetch ended before it had a result.
    Aborted,
    /// `NO_GCE_CHECK`: the metadata server is not called.
    Disabled,
    /// The server failed: 5xx.
    Failing,
    /// The server forbids it: 403.
    Forbidden,
    /// The server that answers is not a metadata server.
    WrongServer,
    /// The endpoint does not accept a requested scope or audience: `invalid_scope`.
    InvalidScope,
    /// The server limits the rate of requests: 429.
    Limited,
    /// The response is not a usable token.
    Malformed,
    /// No such account: 404.
    NoAccount,
    /// There is no credential file, and no metadata server answers.
    NothingFound,
    /// Domain-wide delegation: the token endpoint does not permit the account to act for the user with these scopes.
    NotDelegated,
    /// The IAM Credentials API does not permit the caller to use the account, or does not know the account: 403 or 404.
    NotImpersonated,
    /// The subject token of the credential file cannot be obtained: from its file, program, URL or AWS keys.
    NoSubjectToken,
    /// `--upstream-proxy` opens no tunnel to the token endpoint.
    ProxyRefused,
    /// The server rejects the request: any other 4xx, or a redirect.
    Refused,
    /// The server accepts connections and does not answer in time.
    TimedOut,
    /// No connection can be made.
    Unreachable,
    /// The credential cannot issue the token.
    Unsupported,
}

// === impl TokenFault ===

impl TokenFault {
    /// Every fault.
    pub const ALL: [Self; 18] = [
        Self::Aborted,
        Self::Disabled,
        Self::Failing,
        Self::Forbidden,
        Self::WrongServer,
        Self::InvalidScope,
        Self::Limited,
        Self::Malformed,
        Self::NoAccount,
        Self::NothingFound,
        Self::NotDelegated,
        Self::NotImpersonated,
        Self::NoSubjectToken,
        Self::ProxyRefused,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Unsupported,
    ];

    /// Returns the kind of error: unavailable if a retry may succeed. A proxy's refusal is answered as for any
    /// upstream.
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Aborted
            | Self::Disabled
            | Self::Failing
            | Self::Limited
            | Self::NothingFound
            | Self::NoSubjectToken
            | Self::TimedOut
            | Self::Unreachable => ErrorKind::TokenUnavailable,
            Self::ProxyRefused => ErrorKind::ProxyRefused,
            Self::Forbidden
            | Self::WrongServer
            | Self::InvalidScope
            | Self::Malformed
            | Self::NoAccount
            | Self::NotDelegated
            | Self::NotImpersonated
            | Self::Refused
            | Self::Unsupported => ErrorKind::TokenRefused,
        }
    }
}

// === impl Error ===

impl Error {
    /// Creates the error of a metadata server that issued no token.
    pub(crate) fn no_token(fault: TokenFault, detail: impl Into<String>) -> Self {
        Self::of(Problem::no_token(fault, SourceKind::Metadata, detail))
    }

    /// Sets another kind of source, which issued no token.
    #[must_use]
    pub(crate) fn of_source(mut self, source: SourceKind) -> Self {
        self.0.problem.set_source(source);
        self
    }

    /// Returns the kind of source that issued no token. It has a meaning only if there is a [`fault`](Self::fault).
    pub(crate) fn token_source(&self) -> SourceKind {
        let fault = self.problem().fault();
        fault.map_or(SourceKind::Metadata, |(_, source)| source)
    }

    /// Returns the reason that there is no token, if that is the error and the cause is known.
    pub fn fault(&self) -> Option<TokenFault> {
        self.problem().fault().map(|(fault, _)| fault)
    }
}
