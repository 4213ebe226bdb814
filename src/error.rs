//! The errors of a request, and the responses for them.
//!
//! One exhaustive table, [`ErrorKind::row`], maps each kind to its HTTP status, its `Proxy-Status` error type (RFC
//! 9209, 2.3) and its gRPC status. `proxy/error_response.rs` makes the responses; `diagnostics/advice.rs` has the
//! advice.

use std::fmt;
use std::time::Duration;

mod cause;
mod fault;
mod kind;
mod problem;
mod source_kind;

pub(crate) use cause::cause;
pub use fault::TokenFault;
pub use kind::ErrorKind;
pub(crate) use kind::Side;
pub(crate) use problem::Problem;
pub(crate) use source_kind::SourceKind;

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error of a request. The kind decides the response; the detail is a message.
///
/// A detail never contains a token, or a header that the app sent.
pub struct Error(Box<ErrorInner>);

struct ErrorInner {
    problem: Problem,
    retry_after: Option<Duration>,
    grpc_status: Option<u8>,
    unprocessed: bool,
    transient: bool,
    source: Option<BoxError>,
}

// === impl Error ===

impl Error {
    /// Creates an error of this kind. `detail` says what happened and, if it is known, what to do.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self::of(Problem::new(kind, detail))
    }

    fn of(problem: Problem) -> Self {
        Self(Box::new(ErrorInner {
            problem,
            retry_after: None,
            grpc_status: None,
            unprocessed: false,
            transient: false,
            source: None,
        }))
    }

    /// Sets the cause, for the log.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Replaces the gRPC status of the kind.
    #[must_use]
    pub(crate) fn grpc_status(mut self, status: u8) -> Self {
        self.0.grpc_status = Some(status);
        self
    }

    /// Marks a request that the upstream did not process, so that the app may resend it. `reason` is the error of the
    /// app's HTTP/2 stream.
    #[must_use]
    pub(crate) fn unprocessed(mut self, reason: impl Into<BoxError>) -> Self {
        self.0.unprocessed = true;
        self.caused_by(reason)
    }

    /// Returns whether the upstream processed nothing of the request.
    pub fn is_unprocessed(&self) -> bool {
        self.0.unprocessed
    }

    /// Marks an error that a retry may resolve, although errors of its kind usually recur.
    #[must_use]
    pub(crate) fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// Returns whether a retry may succeed, although errors of this kind usually recur.
    pub(crate) fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Returns the gRPC status of the response.
    pub(crate) fn grpc(&self) -> u8 {
        self.0.grpc_status.unwrap_or_else(|| self.kind().row().grpc)
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.problem.kind()
    }

    /// Returns the part that response, log and status page show.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Returns the message.
    pub fn detail(&self) -> &str {
        self.0.problem.detail()
    }

    /// Returns the time to wait before a retry, if it is known.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the value of `Retry-After`: the time to wait in whole seconds. It is rounded up, because a retry a moment
    /// too early gets the same error.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.wait()?;
        let started = u64::from(wait.subsec_nanos() > 0);
        Some(wait.as_secs().saturating_add(started).max(1))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("detail", &self.detail())
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, kind.row().title)
    }
}
