//! Retries the attempts of one fetch, for any endpoint.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, sleep, timeout};

use super::fetch_error::FetchError;
use super::parse::Malformed;
use crate::error::{ErrorKind, TokenFault};
use crate::upstream::retry_after;

/// The time limit of one attempt, from the connection to the end of the response.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest number of attempts of one fetch.
const MAX_ATTEMPTS: u32 = 5;
/// The pause after the first attempt, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The difference of two clocks, in seconds, below which no hint about the clock is given.
const CLOCK_TOLERANCE: u64 = 30;

/// Starts one attempt. It is a trait object, so that the loop is compiled once for each type of result, not for each
/// caller.
pub(super) type Attempt<'a, 'f, T> = &'a mut (dyn FnMut() -> AttemptFuture<'f, T> + Send);

/// One attempt.
pub(super) type AttemptFuture<'f, T> =
    Pin<Box<dyn Future<Output = Result<T, AttemptError>> + Send + 'f>>;

/// The error of one attempt.
#[derive(Debug)]
pub(super) struct AttemptError {
    pub(super) fault: TokenFault,
    pub(super) reason: String,
    /// Another attempt may succeed.
    pub(super) retry: bool,
    /// The server's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// The status of the response, if there was one.
    pub(super) status: Option<StatusCode>,
    /// The server's error code, such as `invalid_grant`.
    pub(super) code: Option<Box<str>>,
    /// The server's clock minus ours in seconds, if its response has a `Date`.
    pub(super) skew: Option<i64>,
    /// The kind of the error that prevented a response.
    pub(super) kind: Option<ErrorKind>,
}

/// The last attempt's error, and the number of attempts.
#[derive(Debug)]
pub(super) struct RetryError {
    pub(super) error: AttemptError,
    attempts: u32,
}

/// Repeats `attempt` until it succeeds, its error cannot be retried, `end` is reached, or the attempts are used up.
/// Each attempt is cancelled after [`ATTEMPT_TIMEOUT`], or at `end`.
pub(super) async fn retry<T>(end: Instant, attempt: Attempt<'_, '_, T>) -> Result<T, RetryError> {
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
        if !error.retry || attempts == MAX_ATTEMPTS || !in_time {
            return Err(RetryError { error, attempts });
        }
        sleep(wait).await;
        earlier = Some(error);
        pause = LONGEST_PAUSE.min(pause * 2);
        attempts += 1;
    }
}

async fn limited<T>(end: Instant, attempt: AttemptFuture<'_, T>) -> Result<T, AttemptError> {
    let limit = ATTEMPT_TIMEOUT.min(end.saturating_duration_since(Instant::now()));
    timeout(limit, attempt).await.unwrap_or_else(|_| {
        let reason = format!("no response within {:.1} s", limit.as_secs_f32());
        Err(AttemptError::timed_out(&reason))
    })
}

fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(header::RETRY_AFTER)?.to_str().ok()?)
}

/// Returns the server's clock minus ours in seconds, by its `Date` (RFC 9110, 6.6.1).
fn skew(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let seconds = |ahead: Duration| i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX);
    Some(match date.duration_since(now) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    })
}

/// Returns a random time between half of `pause` and all of it.
fn with_jitter(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(fastrand::f64())
}

// === impl AttemptError ===

impl AttemptError {
    /// An error that is not retried.
    pub(super) fn new(fault: TokenFault, reason: String) -> Self {
        Self {
            fault,
            reason,
            retry: false,
            retry_after: None,
            status: None,
            code: None,
            skew: None,
            kind: None,
        }
    }

    /// A status other than success, with the server's message. 408, 429 and 5xx are retried.
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
            StatusCode::REQUEST_TIMEOUT => TokenFault::TimedOut,
            status if status.is_server_error() => TokenFault::Failing,
            _ => TokenFault::Refused,
        };
        Self {
            retry: matches!(
                fault,
                TokenFault::Limited | TokenFault::TimedOut | TokenFault::Failing
            ),
            retry_after: asked_to_wait(headers),
            status: Some(status),
            skew: skew(headers, SystemTime::now()),
            ..Self::new(fault, reason)
        }
    }

    /// The attempt timed out. It is retried.
    pub(super) fn timed_out(reason: &str) -> Self {
        Self {
            retry: true,
            ..Self::new(TokenFault::TimedOut, reason.to_owned())
        }
    }

    /// Returns a hint about this machine's clock, after a server refused a signature or a token with times. The hint
    /// names the difference, or asks a question if the response has no `Date`. Returns `None` if the clocks agree.
    pub(super) fn clock_hint(&self) -> Option<String> {
        let Some(skew) = self.skew else {
            return Some("is this machine's clock correct?".to_owned());
        };
        let off = skew.unsigned_abs();
        if off < CLOCK_TOLERANCE {
            return None;
        }
        let off = humantime::format_duration(Duration::from_secs(match off {
            // `Date` has no fractions, and the response took a moment.
            60.. => (off + 5) / 10 * 10,
            off => off,
        }));
        let which = if skew < 0 { "ahead of" } else { "behind" };
        Some(format!(
            "this machine's clock is {off} {which} the server's (by the Date of its response): correct it"
        ))
    }

    /// Adds [`clock_hint`](Self::clock_hint) to a question about a refusal. Returns only the hint if the server names a
    /// time as the reason.
    pub(super) fn or_clock(&self, question: String) -> String {
        match self.clock_hint() {
            Some(hint) if self.is_about_time() => hint,
            Some(hint) if self.skew.is_some() => format!("{hint}. Or {question}"),
            Some(asked) => format!("{question} Or {asked}"),
            None => question,
        }
    }

    /// Returns whether the server names a time as the reason of its refusal. The texts are those of AWS, and of Google
    /// about JWTs.
    pub(super) fn is_about_time(&self) -> bool {
        const TEXTS: [&str; 8] = [
            "ExpiredToken",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "Signature expired",
            "Signature not yet current",
            "reasonable timeframe",
            " iat ",
            "is stale to sign-in",
        ];
        TEXTS.iter().any(|text| self.reason.contains(text))
    }

    /// Returns [`clock_hint`](Self::clock_hint) if the clocks differ, or if a time is the reason.
    pub(super) fn time_hint(&self) -> Option<String> {
        let hint = self.clock_hint()?;
        (self.skew.is_some() || self.is_about_time()).then_some(hint)
    }

    /// The response is malformed. It is not retried.
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
    /// Creates the error of a fetch that made no attempt.
    pub(super) fn before(error: AttemptError) -> Self {
        Self { error, attempts: 0 }
    }

    /// Returns the error of the fetch. `what` was requested from `endpoint`; `hint` is advice for the user.
    pub(super) fn into_fetch_error(
        self,
        what: &str,
        endpoint: &dyn fmt::Display,
        hint: Option<String>,
    ) -> FetchError {
        let Self { error, attempts } = self;
        let mut detail = format!("cannot get {what} from {endpoint}: {}", error.reason);
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
