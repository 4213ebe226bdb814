//! The client of Google's metadata server.
//!
//! It speaks HTTP/1.1 on a connection of its own for each attempt: the server is next door, and a connection kept while
//! the instance was frozen is worth nothing. It knows no proxy, because the app's proxy is this very sidecar, and follows
//! no redirect.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::{Fetching, TokenSource};
use crate::config::MetadataServer;
use crate::error::TokenFault;
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::facts::Fact;
use crate::token::failure::FetchError;
use crate::token::parse::{self, Malformed};
use crate::token::priority::FetchPriority;
use crate::token::retry::{ATTEMPT, AttemptError, RetryError, retry};
use crate::token::value::{Age, Token};

mod request;
mod transport;

use request::{MetadataRequest, words};
use transport::{Peer, Response, TransportError};

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

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        self.request(&MetadataRequest::token(key), priority, |body, start| {
            read_token(&key.kind, body, start, Now::now())
        })
        .await
    }

    async fn known(&self, fact: Fact<'_>) -> Result<Option<String>, FetchError> {
        let answer = self.text(&MetadataRequest::fact(fact)).await;
        let is_missing = |error: &FetchError| error.status == Some(StatusCode::NOT_FOUND);
        match (fact, answer) {
            (Fact::Universe, Ok(text)) if text.is_empty() => Ok(None),
            (Fact::Universe, Err(error)) if is_missing(&error) => Ok(None),
            // A machine without a region, as on Compute Engine, is in the region of its zone.
            (Fact::Region, Err(error)) if is_missing(&error) => {
                self.text(&MetadataRequest::zone()).await.map(Some)
            }
            (_, answer) => answer.map(Some),
        }
    }

    /// Fetches a text of one line.
    async fn text(&self, request: &MetadataRequest) -> Result<String, FetchError> {
        self.request(request, &FetchPriority::high(), |body, _| {
            str::from_utf8(body.trim_ascii())
                .map(str::to_owned)
                .map_err(|_| AttemptError::malformed("the answer is no text".to_owned()))
        })
        .await
    }

    /// Asks until there is an answer that `read` takes, or no more sense in asking. `read` also gets the start of the
    /// attempt, from which lifetimes count.
    async fn request<T>(
        &self,
        request: &MetadataRequest,
        priority: &FetchPriority,
        read: impl Fn(&[u8], Now) -> Result<T, AttemptError> + Sync,
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
            let error = AttemptError::timed_out("too many tokens are asked for at once");
            return Err(failed(RetryError::before(error), request, peer));
        }
        let Ok(Some(_permit)) = timeout_at(end, self.0.permit(priority)).await else {
            let error = AttemptError::timed_out("other fetches took all the time");
            return Err(failed(RetryError::before(error), request, peer));
        };
        let fetched = retry(end, || async {
            let start = Now::now();
            let answer = peer.ask(&request.target).await?;
            read(&body(answer)?, start)
        });
        fetched.await.map_err(|error| failed(error, request, peer))
    }
}

impl TokenSource for MetadataClient {
    fn describe(&self) -> &'static str {
        "the metadata server"
    }

    fn serves(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Attached | Principal::Account(_))
    }

    fn fetch<'a>(&'a self, key: &'a TokenKey, priority: &'a FetchPriority) -> Fetching<'a, Token> {
        Box::pin(self.token(key, priority))
    }

    fn time_limit(&self) -> Duration {
        self.0.timeout
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> Fetching<'a, Option<String>> {
        Box::pin(self.known(fact))
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

// === impl TransportError ===

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

/// Returns the body of a successful answer.
fn body(answer: Response) -> Result<bytes::Bytes, AttemptError> {
    let status = answer.head.status;
    if status == StatusCode::OK {
        // Proof that it is the metadata server, and not whoever else answers at that address.
        let flavor = answer.head.headers.get("metadata-flavor");
        return if flavor.is_some_and(|flavor| flavor.as_bytes() == b"Google") {
            Ok(answer.body)
        } else {
            Err(AttemptError::new(
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
    Err(AttemptError {
        retry: busy,
        retry_after: answer
            .head
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs),
        status: Some(status),
        ..AttemptError::new(fault, reason)
    })
}

/// The error of a fetch, with a hint for the user.
fn failed(failure: RetryError, request: &MetadataRequest, peer: &Peer) -> FetchError {
    let hint = match failure.error.status {
        Some(status) => request.hint(status),
        None if failure.error.fault == TokenFault::Unreachable => Some(
            "is this Google Cloud? Elsewhere GCE_METADATA_HOST names the metadata server"
                .to_owned(),
        ),
        None => None,
    };
    failure.into_fetch_error(&request.clause(), peer, hint)
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
        return Err(AttemptError::timed_out("the answer was read too late"));
    }
    token.map_err(AttemptError::from)
}

#[cfg(test)]
mod tests;
