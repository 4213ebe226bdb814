//! The part of an error that response, log and status page show.

use super::{ErrorKind, SourceKind, TokenFault};

/// The kind, fault and detail of an error. Response, access log and status page are made from it; `diagnostics` has its
/// title and advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ErrorKind,
    fault: Option<(TokenFault, SourceKind)>,
    detail: String,
}

// === impl Problem ===

impl Problem {
    /// Creates an error of this kind. The detail says what happened and, if it is known, what to do.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            fault: None,
            detail: detail.into(),
        }
    }

    /// Creates the error of a source of this kind that issued no token.
    pub(crate) fn no_token(
        fault: TokenFault,
        source: SourceKind,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            fault: Some((fault, source)),
            ..Self::new(fault.kind(), detail)
        }
    }

    /// Returns the kind, which decides the response.
    pub(crate) const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the reason that there is no token, and the kind of source that issued none, if that is the error.
    pub(crate) const fn fault(&self) -> Option<(TokenFault, SourceKind)> {
        self.fault
    }

    /// Returns the detail: what happened.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn set_source(&mut self, source: SourceKind) {
        if let Some((_, of)) = &mut self.fault {
            *of = source;
        }
    }
}
