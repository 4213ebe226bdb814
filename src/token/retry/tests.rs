use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::{
    AttemptError, AttemptFuture, FIRST_PAUSE, LONGEST_PAUSE, MAX_ATTEMPTS, RetryError, with_jitter,
};
use crate::error::TokenFault;

fn busy() -> AttemptError {
    AttemptError {
        retry: true,
        ..AttemptError::new(TokenFault::Failing, "answered 500".to_owned())
    }
}

fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Runs the loop over this attempt.
async fn retry<T, F>(end: Instant, mut attempt: impl FnMut() -> F + Send) -> Result<T, RetryError>
where
    F: Future<Output = Result<T, AttemptError>> + Send + 'static,
{
    super::retry(end, &mut || Box::pin(attempt()) as AttemptFuture<'_, T>).await
}

#[test]
fn five_attempts_outlast_a_server_start_of_700_ms() {
    for _ in 0..1_000 {
        let mut pause = FIRST_PAUSE;
        let mut total = Duration::ZERO;
        for _ in 1..MAX_ATTEMPTS {
            total += with_jitter(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        let span = Duration::from_millis(750)..=Duration::from_millis(1_500);
        assert!(span.contains(&total), "{total:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_repeated_until_it_succeeds() {
    let calls = AtomicU32::new(0);
    let value = retry(in_seconds(8), || {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        async move { if call < 3 { Err(busy()) } else { Ok(call) } }
    })
    .await;
    assert_eq!(value.ok(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_request_the_endpoint_and_the_attempts() {
    let failed = retry::<(), _>(in_seconds(8), || async { Err(busy()) }).await;
    let error = failed.unwrap_err().into_fetch_error(
        "an access token",
        &"https://oauth2.googleapis.com/token",
        Some("try later".to_owned()),
    );
    assert_eq!(
        error.detail(),
        "token: cannot get an access token from https://oauth2.googleapis.com/token: answered 500 (5 attempts); try later"
    );
    assert_eq!(error.fault(), TokenFault::Failing);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_cancelled_in_time() {
    let start = Instant::now();
    let failed = retry::<(), _>(in_seconds(8), std::future::pending).await;
    assert_eq!(failed.unwrap_err().error.fault, TokenFault::TimedOut);
    assert!(start.elapsed() <= Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_ends_the_fetch_at_once() {
    let calls = AtomicU32::new(0);
    let failed = retry::<(), _>(in_seconds(8), || {
        calls.fetch_add(1, Ordering::Relaxed);
        async { Err(AttemptError::malformed("nonsense".to_owned())) }
    })
    .await;
    assert_eq!(failed.unwrap_err().error.fault, TokenFault::Malformed);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

fn asked_to_wait(value: &str) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, value.parse().unwrap());
    AttemptError::answered(StatusCode::TOO_MANY_REQUESTS, &headers, None).retry_after
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    assert_eq!(asked_to_wait("3"), Some(Duration::from_secs(3)));
    assert_eq!(asked_to_wait(" 0 "), Some(Duration::ZERO));
    let far = asked_to_wait("9999999999999999999999").unwrap();
    assert!(far > Duration::from_secs(1 << 40), "{far:?}");
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
    let wait = asked_to_wait(&soon).unwrap().as_secs();
    assert!((80..=90).contains(&wait), "{wait}");
    assert_eq!(
        asked_to_wait("Sat, 28 Nov 2020 00:00:00 GMT"),
        Some(Duration::ZERO)
    );
    for nonsense in ["", "-1", "3.5", "soon"] {
        assert_eq!(asked_to_wait(nonsense), None, "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_deadline_ends_the_fetch() {
    let calls = AtomicU32::new(0);
    let failed = retry::<(), _>(in_seconds(8), || {
        calls.fetch_add(1, Ordering::Relaxed);
        let retry_after = asked_to_wait("9999999999999999999999");
        async move {
            Err(AttemptError {
                retry_after,
                ..busy()
            })
        }
    });
    assert!(failed.await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// The hint about the clock after a refusal, with the server's clock ahead of ours by this number of seconds.
fn clock_hint(ahead: i64) -> Option<String> {
    let by = Duration::from_secs(ahead.unsigned_abs());
    let now = SystemTime::now();
    let date = if ahead < 0 { now - by } else { now + by };
    let mut headers = HeaderMap::new();
    let date = httpdate::fmt_http_date(date).parse().unwrap();
    headers.insert(header::DATE, date);
    AttemptError::answered(StatusCode::BAD_REQUEST, &headers, None).clock_hint()
}

#[test]
fn a_clock_that_is_off_is_reported_with_its_offset() {
    for ahead in [-20, 0, 20] {
        assert_eq!(clock_hint(ahead), None, "{ahead}");
    }
    for (ahead, expected) in [
        (-600, "10m ahead of"),
        (600, "10m behind"),
        (-7_200, "2h ahead of"),
    ] {
        let hint = clock_hint(ahead).unwrap();
        assert!(hint.contains(expected), "{ahead}: {hint}");
    }
    let without = AttemptError::answered(StatusCode::BAD_REQUEST, &HeaderMap::new(), None);
    assert_eq!(
        without.clock_hint().as_deref(),
        Some("is this machine's clock correct?")
    );
}

#[test]
fn only_a_refusal_for_time_gets_a_question_about_the_clock() {
    let said = |text: &str| {
        let words = Some(text.to_owned());
        AttemptError::answered(StatusCode::BAD_REQUEST, &HeaderMap::new(), words)
    };
    for text in [
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        "Check your iat and exp values in the JWT claim.",
        "RequestExpired: Request has expired.",
        "Signature expired: 20200811T065522Z is now earlier than 20200811T070523Z",
    ] {
        assert!(said(text).time_hint().is_some(), "{text}");
    }
    for text in ["invalid_grant", "the associated account is disabled"] {
        assert!(said(text).time_hint().is_none(), "{text}");
    }
}
