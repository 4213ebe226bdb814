//! The part of an error that response, log and status page show.

use super::{ErrorKind, SourceKind, TokenFault};

/// The kind, fault and detail of an error. Response, access log and status page are made from it; `diagnostics` has its title
/// and advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ErrorKind,
    fault: Option<(TokenFault, SourceKind)>,
    detail: String,
}

// === impl Problem ===

impl Problem {
    /// An error of this kind. The detail says what happened and, if it is known, what to do.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            fault: None,
            detail: detail.into(),
        }
    }

    /// A source of this kind issued no token.
    pub fn no_token(fault: TokenFault, source: SourceKind, detail: impl Into<String>) -> Self {
        Self {
            fault: Some((fault, source)),
            ..Self::new(fault.kind(), detail)
        }
    }

    /// The kind, which decides the response.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why there is no token and which kind of source issued none, if that is the error.
    pub const fn fault(&self) -> Option<(TokenFault, SourceKind)> {
        self.fault
    }

    /// What happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn set_source(&mut self, source: SourceKind) {
        if let Some((_, of)) = &mut self.fault {
            *of = source;
        }
    }
}
