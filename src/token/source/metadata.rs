//! The client of Google's metadata server.
//!
//! It speaks HTTP/1.1 on a connection of its own for each attempt: the server is next door, and a connection kept while
//! the instance was frozen is worth nothing. It knows no proxy, because the app's proxy is this very sidecar, and follows
//! no redirect.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::MetadataServer;
use crate::error::TokenFault;
use crate::policy::{TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::failure::FetchError;
use crate::token::parse::{self, Malformed};
use crate::token::priority::FetchPriority;
use crate::token::value::{Age, Token};

pub(in crate::token) mod request;
mod transport;

use request::{MetadataRequest, words};
use transport::{Peer, Response, TransportError};

/// For one attempt, from the connection to the end of the answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Attempts of one fetch.
const ATTEMPTS: u32 = 5;
/// The pause after the first attempt, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// More than anyone waits, and less than any clock can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Fetches at the same time: the server limits those who ask for much at once.
const AT_ONCE: usize = 4;
/// Of these, so many may be for audiences that requests name; the others are kept for access tokens, routes and facts.
const NORMAL_AT_ONCE: usize = AT_ONCE / 2;
/// Fetches for audiences that requests name, waiting and under way. More of them fail at once.
const NORMAL_QUEUE: usize = 1_024;

/// Asks the metadata server; clones share its limits.
#[derive(Clone, Debug)]
pub struct MetadataClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: Peer,
    disabled: bool,
    timeout: Duration,
    permits: Semaphore,
    normal_permits: Semaphore,
    normal_queue: Semaphore,
}

/// The right to fetch.
#[derive(Debug)]
struct Permit<'a> {
    _any: SemaphorePermit<'a>,
    _normal: Option<SemaphorePermit<'a>>,
}

/// An attempt that failed.
#[derive(Debug)]
struct AttemptError {
    fault: TokenFault,
    reason: String,
    retry: bool,
    retry_after: Option<Duration>,
    status: Option<StatusCode>,
}

// === impl MetadataClient ===

impl MetadataClient {
    /// A client for this server. `timeout` is for one fetch with all its attempts (`--token-timeout`).
    pub fn new(server: &MetadataServer, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            peer: Peer::new(&server.host, server.port),
            disabled: server.disabled,
            timeout: timeout.min(LONGEST_TIMEOUT),
            permits: Semaphore::new(AT_ONCE),
            normal_permits: Semaphore::new(NORMAL_AT_ONCE),
            normal_queue: Semaphore::new(NORMAL_QUEUE),
        }))
    }

    /// One fetch ends within this.
    pub(in crate::token) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Fetches a token.
    pub(in crate::token) async fn token(
        &self,
        key: &TokenKey,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        self.fetch(&MetadataRequest::token(key), priority, |body, start| {
            read_token(&key.kind, body, start, Now::now())
        })
        .await
    }

    /// Fetches a text of one line.
    pub(in crate::token) async fn text(
        &self,
        request: &MetadataRequest,
    ) -> Result<String, FetchError> {
        self.fetch(request, &FetchPriority::high(), |body, _| {
            str::from_utf8(body.trim_ascii())
                .map(str::to_owned)
                .map_err(|_| AttemptError::malformed("the answer is no text".to_owned()))
        })
        .await
    }

    /// Asks until there is an answer that `read` takes, or no more sense in asking. `read` also gets the start of the
    /// attempt, from which lifetimes count.
    async fn fetch<T>(
        &self,
        request: &MetadataRequest,
        priority: &FetchPriority,
        read: impl Fn(&[u8], Now) -> Result<T, AttemptError>,
    ) -> Result<T, FetchError> {
        let Inner {
            peer,
            disabled,
            timeout,
            normal_queue,
            ..
        } = &*self.0;
        if *disabled {
            return Err(FetchError::new(
                TokenFault::Disabled,
                &format!(
                    "{} cannot be had: NO_GCE_CHECK says that there is no metadata server",
                    request.clause()
                ),
            ));
        }
        let end = Instant::now() + *timeout;
        let queued = (!priority.is_high()).then(|| normal_queue.try_acquire());
        if matches!(queued, Some(Err(_))) {
            let failure = AttemptError::silent("too many tokens are asked for at once");
            return Err(failure.into_error(request, peer, 0));
        }
        let Ok(Some(_permit)) = timeout_at(end, self.0.permit(priority)).await else {
            let failure = AttemptError::silent("other fetches took all the time");
            return Err(failure.into_error(request, peer, 0));
        };
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        let mut earlier = None;
        loop {
            let start = Now::now();
            let result = Self::attempt(peer, &request.target, end).await;
            let failure = match result.and_then(|body| read(&body, start)) {
                Ok(value) => return Ok(value),
                Err(failure) if Instant::now() < end => failure,
                // Cut short at the end, an attempt tells less than the one before it.
                Err(failure) => earlier.take().unwrap_or(failure),
            };
            let wait = with_jitter(pause).max(failure.retry_after.unwrap_or_default());
            let in_time = end.saturating_duration_since(Instant::now()) > wait;
            if !failure.retry || attempt == ATTEMPTS || !in_time {
                return Err(failure.into_error(request, peer, attempt));
            }
            sleep(wait).await;
            earlier = Some(failure);
            pause = LONGEST_PAUSE.min(pause * 2);
            attempt += 1;
        }
    }

    async fn attempt(
        peer: &Peer,
        target: &str,
        end: Instant,
    ) -> Result<bytes::Bytes, AttemptError> {
        let limit = ATTEMPT.min(end.saturating_duration_since(Instant::now()));
        match timeout(limit, peer.ask(target)).await {
            Ok(Ok(answer)) => AttemptError::unless_ok(answer),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(AttemptError::silent(&format!(
                "no answer within {:.1} s",
                limit.as_secs_f32()
            ))),
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Waits for a permit; `None` never comes, because the semaphores are not closed. Of normal priority at most
    /// [`NORMAL_AT_ONCE`] wait for a permit that high priority may have, so those are soon served.
    async fn permit(&self, priority: &FetchPriority) -> Option<Permit<'_>> {
        let normal = tokio::select! {
            biased;
            () = priority.raised() => None,
            permit = self.normal_permits.acquire() => Some(permit.ok()?),
        };
        Some(Permit {
            _any: self.permits.acquire().await.ok()?,
            _normal: normal,
        })
    }
}

// === impl AttemptError ===

impl AttemptError {
    fn new(fault: TokenFault, reason: String) -> Self {
        Self {
            fault,
            reason,
            retry: false,
            retry_after: None,
            status: None,
        }
    }

    /// Nothing came of it in time, and the next attempt may go better.
    fn silent(reason: &str) -> Self {
        Self {
            retry: true,
            ..Self::new(TokenFault::Silent, reason.to_owned())
        }
    }

    /// An answer that another attempt would not change.
    fn malformed(reason: String) -> Self {
        Self::new(TokenFault::Malformed, reason)
    }

    fn unless_ok(answer: Response) -> Result<bytes::Bytes, Self> {
        let status = answer.head.status;
        if status == StatusCode::OK {
            // Proof that it is the metadata server, and not whoever else answers at that address.
            let flavor = answer.head.headers.get("metadata-flavor");
            return if flavor.is_some_and(|flavor| flavor.as_bytes() == b"Google") {
                Ok(answer.body)
            } else {
                Err(Self::new(
                    TokenFault::Impostor,
                    "the answer has no Metadata-Flavor: Google, so something else answers there"
                        .to_owned(),
                ))
            };
        }
        let busy = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        ) || status.is_server_error();
        let mut reason = format!("answered {}", status.as_u16());
        if let Some(name) = status.canonical_reason() {
            reason = format!("{reason} {name}");
        }
        if let Some(words) = words(&answer.body) {
            reason = format!("{reason}: {words:?}");
        }
        let fault = match status {
            StatusCode::NOT_FOUND => TokenFault::NoAccount,
            StatusCode::FORBIDDEN => TokenFault::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => TokenFault::Limited,
            StatusCode::REQUEST_TIMEOUT => TokenFault::Silent,
            status if status.is_server_error() => TokenFault::Failing,
            _ => TokenFault::Refused,
        };
        Err(Self {
            retry: busy,
            retry_after: answer
                .head
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs),
            status: Some(status),
            ..Self::new(fault, reason)
        })
    }

    fn into_error(self, request: &MetadataRequest, peer: &Peer, attempts: u32) -> FetchError {
        let mut detail = format!("{} asked of {peer}: {}", request.clause(), self.reason);
        if attempts > 1 {
            detail = format!("{detail} ({attempts} attempts)");
        }
        let hint = match self.status {
            Some(status) => request.hint(status),
            None if self.fault == TokenFault::Unreachable => Some(
                "is this Google Cloud? Elsewhere GCE_METADATA_HOST names the metadata server"
                    .to_owned(),
            ),
            None => None,
        };
        if let Some(hint) = hint {
            detail = format!("{detail}; {hint}");
        }
        let mut error = FetchError::new(self.fault, &detail);
        error.retry_after = self.retry_after;
        error.status = self.status;
        error
    }
}

impl From<Malformed> for AttemptError {
    fn from(malformed: Malformed) -> Self {
        Self::malformed(malformed.to_string())
    }
}

impl From<TransportError> for AttemptError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Connect(_)
            | TransportError::Resolve(_)
            | TransportError::ConnectTimeout(_) => Self {
                retry: true,
                ..Self::new(TokenFault::Unreachable, error.to_string())
            },
            TransportError::Torn(_) => Self {
                retry: true,
                ..Self::new(TokenFault::Failing, error.to_string())
            },
            TransportError::NoHttp => Self::new(TokenFault::Impostor, error.to_string()),
            TransportError::TooLong => Self::malformed(error.to_string()),
        }
    }
}

/// Reads the answer to an attempt that began at `start`.
fn read_token(kind: &TokenKind, body: &[u8], start: Now, now: Now) -> Result<Token, AttemptError> {
    let token = match kind {
        TokenKind::Access { .. } => parse::access_token(body, start, now),
        TokenKind::Id { audience } => parse::id_token(body, audience, start, now),
    };
    let spent = match &token {
        Ok(token) => token.age(now) <= Age::Expiring,
        Err(malformed) => *malformed == Malformed::Expired,
    };
    // The instance was frozen while the answer lay in its buffers: the server has a better one by now.
    if spent && now.since(start) > ATTEMPT {
        return Err(AttemptError::silent("the answer was read too late"));
    }
    token.map_err(AttemptError::from)
}

/// Between half of it and the whole.
fn with_jitter(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests;
