//! The error of a fetch. Clones share it, because every request that waits gets it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::error::{Error, Problem, SourceKind, TokenFault};

/// The prefix by which callers distinguish these errors from others.
const PREFIX: &str = "token: ";

/// The error of a fetch after its last attempt.
#[derive(Clone, Debug)]
pub(super) struct FetchError {
    fault: TokenFault,
    /// The kind of source that failed, once it is known.
    source: Option<SourceKind>,
    detail: Arc<str>,
    /// The server's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// The status of the server's last response, if it responded.
    pub(super) status: Option<StatusCode>,
    /// The same error was returned for another token or fact, which has logged it.
    pub(super) is_repeated: bool,
}

// === impl FetchError ===

impl FetchError {
    /// An error with this fault. The detail gets the prefix `token: `.
    pub(super) fn new(fault: TokenFault, detail: &str) -> Self {
        Self {
            fault,
            source: None,
            detail: format!("{PREFIX}{detail}").into(),
            retry_after: None,
            status: None,
            is_repeated: false,
        }
    }

    /// Converts the error of a fact into that of the fetch that needs the fact.
    pub(super) fn of(error: &Error) -> Self {
        let detail = error.detail();
        let fault = error.fault().unwrap_or(TokenFault::Aborted);
        let same = Self::new(fault, detail.strip_prefix(PREFIX).unwrap_or(detail));
        same.of_source(error.token_source())
    }

    /// Prepends what the error prevented.
    #[must_use]
    pub(super) fn prefixed(self, text: &str) -> Self {
        let detail = self.detail.strip_prefix(PREFIX).unwrap_or(&self.detail);
        Self {
            detail: format!("{PREFIX}{text}: {detail}").into(),
            ..self
        }
    }

    /// The error of a fetch that ended without a result: it panicked, or the runtime shuts down.
    pub(super) fn aborted() -> Self {
        Self::new(TokenFault::Aborted, "the fetch was cancelled")
    }

    /// Sets the kind of source, unless the error of another source has set it.
    pub(super) fn of_source(self, source: SourceKind) -> Self {
        Self {
            source: self.source.or(Some(source)),
            ..self
        }
    }

    /// Returns the kind of source that failed.
    pub(super) fn source(&self) -> SourceKind {
        self.source.unwrap_or(SourceKind::Metadata)
    }

    /// Returns the class of the error, which selects the advice.
    pub(super) fn fault(&self) -> TokenFault {
        self.fault
    }

    /// Returns the message.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the [`Problem`] shown in responses, logs and the status page.
    pub(super) fn problem(&self) -> Problem {
        Problem::no_token(self.fault, self.source(), &*self.detail)
    }

    /// Converts to the error of one request. `wait` is the time until the next fetch.
    pub(super) fn to_error(&self, wait: Duration) -> Error {
        Error::no_token(self.fault, &*self.detail)
            .of_source(self.source())
            .retry_after(wait)
    }
}
