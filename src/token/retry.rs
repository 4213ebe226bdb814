//! One fetch as several attempts, for any endpoint that may be down, slow or busy.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, sleep, timeout};

use super::failure::FetchError;
use super::parse::Malformed;
use crate::error::TokenFault;

/// The time limit of one attempt, from the connection to the end of the answer.
pub(super) const ATTEMPT: Duration = Duration::from_secs(3);
/// Attempts of one fetch.
const ATTEMPTS: u32 = 5;
/// The pause after the first attempt, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct AttemptError {
    pub(super) fault: TokenFault,
    pub(super) reason: String,
    /// Another attempt may succeed.
    pub(super) retry: bool,
    /// What the server asked for with `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// The status of the answer, if there was one.
    pub(super) status: Option<StatusCode>,
    /// The server's own code of the error, such as `invalid_grant`.
    pub(super) code: Option<Box<str>>,
}

/// The last attempt's error, and the number of attempts.
#[derive(Debug)]
pub(super) struct RetryError {
    pub(super) error: AttemptError,
    attempts: u32,
}

/// Repeats `attempt` until it succeeds, its error says not to retry, or the time until `end` or the number of attempts is
/// used up. Each attempt is cancelled after [`ATTEMPT`], or at `end`.
pub(super) async fn retry<T, F>(
    end: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T, RetryError>
where
    F: Future<Output = Result<T, AttemptError>>,
{
    let mut pause = FIRST_PAUSE;
    let mut attempts = 1;
    let mut earlier = None;
    loop {
        let error = match limited(end, attempt()).await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() < end => error,
            // If the deadline interrupted this attempt, reports the previous error instead.
            Err(error) => earlier.take().unwrap_or(error),
        };
        let wait = with_jitter(pause).max(error.retry_after.unwrap_or_default());
        let in_time = end.saturating_duration_since(Instant::now()) > wait;
        if !error.retry || attempts == ATTEMPTS || !in_time {
            return Err(RetryError { error, attempts });
        }
        sleep(wait).await;
        earlier = Some(error);
        pause = LONGEST_PAUSE.min(pause * 2);
        attempts += 1;
    }
}

async fn limited<T>(
    end: Instant,
    attempt: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    let limit = ATTEMPT.min(end.saturating_duration_since(Instant::now()));
    timeout(limit, attempt).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {:.1} s", limit.as_secs_f32());
        Err(AttemptError::timed_out(&reason))
    })
}

/// Between half of it and the whole.
fn with_jitter(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(fastrand::f64())
}

// === impl AttemptError ===

impl AttemptError {
    /// An error that another attempt would not change.
    pub(super) fn new(fault: TokenFault, reason: String) -> Self {
        Self {
            fault,
            reason,
            retry: false,
            retry_after: None,
            status: None,
            code: None,
        }
    }

    /// A status that is no success, with the server's words. Another attempt may succeed after 408, 429 and 5xx.
    pub(super) fn answered(status: StatusCode, headers: &HeaderMap, words: Option<String>) -> Self {
        let mut reason = format!("answered {}", status.as_u16());
        if let Some(name) = status.canonical_reason() {
            reason = format!("{reason} {name}");
        }
        if let Some(words) = words {
            reason = format!("{reason}: {words}");
        }
        let fault = match status {
            StatusCode::NOT_FOUND => TokenFault::NoAccount,
            StatusCode::FORBIDDEN => TokenFault::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => TokenFault::Limited,
            StatusCode::REQUEST_TIMEOUT => TokenFault::Silent,
            status if status.is_server_error() => TokenFault::Failing,
            _ => TokenFault::Refused,
        };
        Self {
            retry: matches!(
                fault,
                TokenFault::Limited | TokenFault::Silent | TokenFault::Failing
            ),
            retry_after: headers
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs),
            status: Some(status),
            ..Self::new(fault, reason)
        }
    }

    /// There was no result in time. The next attempt may succeed.
    pub(super) fn timed_out(reason: &str) -> Self {
        Self {
            retry: true,
            ..Self::new(TokenFault::Silent, reason.to_owned())
        }
    }

    /// An answer that another attempt would not change.
    pub(super) fn malformed(reason: String) -> Self {
        Self::new(TokenFault::Malformed, reason)
    }
}

impl From<Malformed> for AttemptError {
    fn from(malformed: Malformed) -> Self {
        Self::malformed(malformed.to_string())
    }
}

// === impl RetryError ===

impl RetryError {
    /// An error that prevented the first attempt.
    pub(super) fn before(error: AttemptError) -> Self {
        Self { error, attempts: 0 }
    }

    /// Returns the error of the whole fetch. `what` was requested from `endpoint`; `hint` is what a person can do.
    pub(super) fn into_fetch_error(
        self,
        what: &str,
        endpoint: &impl fmt::Display,
        hint: Option<String>,
    ) -> FetchError {
        let Self { error, attempts } = self;
        let mut detail = format!("{what} asked of {endpoint}: {}", error.reason);
        if attempts > 1 {
            detail = format!("{detail} ({attempts} attempts)");
        }
        if let Some(hint) = hint {
            detail = format!("{detail}; {hint}");
        }
        let mut fetch = FetchError::new(error.fault, &detail);
        fetch.retry_after = error.retry_after;
        fetch.status = error.status;
        fetch
    }
}

#[cfg(test)]
mod tests;
