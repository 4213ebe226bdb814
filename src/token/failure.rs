//! Why there is no token, in a form that all who wait for it can share.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::clock::{Deadline, Now};
use crate::error::{Error, SourceKind, TokenFault};

/// By which callers tell these errors from others.
const PREFIX: &str = "token: ";

/// The longest time without a try.
const LONGEST: Duration = Duration::from_secs(30);

/// A fetch that failed, with all its attempts.
#[derive(Clone, Debug)]
pub(super) struct FetchError {
    fault: TokenFault,
    /// The kind of source that failed, once it is known.
    source: Option<SourceKind>,
    detail: Arc<str>,
    /// What the server asked for with `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// What the server answered last, where it answered at all.
    pub(super) status: Option<StatusCode>,
}

/// When to try again after failures: 1, 2, 4 … 30 seconds after the last, or later where the server asked for it. It never
/// gives up.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<FetchError>,
    until: Option<Deadline>,
}

// === impl FetchError ===

impl FetchError {
    /// A failure with this fault; the detail gets the `token:` in front by which callers tell these errors apart.
    pub(super) fn new(fault: TokenFault, detail: &str) -> Self {
        Self {
            fault,
            source: None,
            detail: format!("{PREFIX}{detail}").into(),
            retry_after: None,
            status: None,
        }
    }

    /// The error of a fact, as that of the fetch that needs the fact.
    pub(super) fn of(error: &Error) -> Self {
        let detail = error.detail();
        let fault = error.fault().unwrap_or(TokenFault::CutShort);
        let same = Self::new(fault, detail.strip_prefix(PREFIX).unwrap_or(detail));
        same.of_source(error.token_source())
    }

    /// The same error with what it prevented before it.
    #[must_use]
    pub(super) fn prefixed(self, text: &str) -> Self {
        let detail = self.detail.strip_prefix(PREFIX).unwrap_or(&self.detail);
        Self {
            detail: format!("{PREFIX}{text}: {detail}").into(),
            ..self
        }
    }

    /// A fetch that ended without a result: it panicked, or the runtime is going down.
    pub(super) fn aborted() -> Self {
        Self::new(TokenFault::CutShort, "the fetch was cut short")
    }

    /// The same, as the error of a source of this kind, unless another source failed beneath it.
    pub(super) fn of_source(self, source: SourceKind) -> Self {
        Self {
            source: self.source.or(Some(source)),
            ..self
        }
    }

    /// The kind of source that failed.
    pub(super) fn source(&self) -> SourceKind {
        self.source.unwrap_or(SourceKind::Metadata)
    }

    /// What went wrong, as far as what to do depends on it.
    pub(super) fn fault(&self) -> TokenFault {
        self.fault
    }

    /// What happened, for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The error of one request; `wait` is what it takes until the next try.
    pub(super) fn to_error(&self, wait: Duration) -> Error {
        Error::no_token(self.fault, &*self.detail)
            .of_source(self.source())
            .retry_after(wait)
    }
}

// === impl Backoff ===

impl Backoff {
    /// Counts a failure. One that says nothing about the next try (`frozen`) holds nobody off.
    pub(super) fn failed(&mut self, error: FetchError, frozen: bool, now: Now) {
        self.until = if frozen {
            None
        } else {
            let doubled = Duration::from_secs(1 << self.failures.min(5));
            let wait = doubled.max(error.retry_after.unwrap_or_default());
            self.failures = self.failures.saturating_add(1);
            Some(now.after(wait.min(LONGEST)))
        };
        self.last = Some(error);
    }

    /// Forgets the failures; says whether there were any.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    /// How long nothing is tried; `None` when it may be.
    pub(super) fn left(&self, now: Now) -> Option<Duration> {
        let left = self.until?.left(now);
        (!left.is_zero()).then_some(left)
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The last failure since the last success.
    pub(super) fn last_error(&self) -> Option<&FetchError> {
        self.last.as_ref()
    }
}
