//! The client of Google's metadata server.
//!
//! Each attempt uses HTTP/1.1 on a new connection. The server is on the same host, and an open connection may be dead
//! after the instance was suspended. The client ignores `HTTP_PROXY`, which names this sidecar, and follows no
//! redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{StatusCode, response};

use super::fetch_limits::FetchLimits;
use super::lateness::check_lateness;
use super::message::words;
use super::{FetchFuture, TokenSource};
use crate::config::MetadataServer;
use crate::credentials::{NO_METADATA_SERVER, nothing_found, nothing_found_without_server};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::{AttemptError, RetryError};
use crate::token::value::Token;

mod client;
mod request;

use client::{BufferedResponse, MetadataEndpoint, TransportError};
use request::MetadataRequest;

/// The time limit of the probe for a metadata server.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client of the metadata server. Clones share its limits.
#[derive(Clone, Debug)]
pub struct MetadataClient(Arc<MetadataInner>);

#[derive(Debug)]
struct MetadataInner {
    endpoint: MetadataEndpoint,
    disabled: bool,
    limits: FetchLimits,
    /// The places that were searched for a credential file, for the error. `None` if a metadata server is expected, so
    /// no probe is sent.
    searched: Option<Arc<str>>,
    /// Whether a metadata server has answered.
    found: AtomicBool,
    /// Whether a search has found nothing, which is logged once.
    reported: AtomicBool,
}

/// Returns the body of a successful response.
fn body(answer: BufferedResponse) -> Result<bytes::Bytes, AttemptError> {
    let status = answer.head.status;
    if status == StatusCode::OK {
        check_flavor(&answer.head)?;
        return Ok(answer.body);
    }
    Err(AttemptError::answered(
        status,
        &answer.head.headers,
        words(&answer.body).map(|words| format!("{words:?}")),
    ))
}

/// Checks for the metadata server's header, because another server may answer at the address.
fn check_flavor(head: &response::Parts) -> Result<(), AttemptError> {
    let flavor = head.headers.get("metadata-flavor");
    if flavor.is_some_and(|flavor| flavor.as_bytes() == b"Google") {
        Ok(())
    } else {
        Err(AttemptError::new(
            TokenFault::WrongServer,
            "the response has no Metadata-Flavor: Google, so another server answers there"
                .to_owned(),
        ))
    }
}

/// Returns the error of a fetch, with advice for the user.
fn failed(
    failure: RetryError,
    request: &MetadataRequest,
    endpoint: &MetadataEndpoint,
) -> FetchError {
    let hint = match failure.error.status {
        Some(status) => request.hint(status),
        None if failure.error.fault == TokenFault::Unreachable => Some(
            "is this Google Cloud? Elsewhere GCE_METADATA_HOST names the metadata server"
                .to_owned(),
        ),
        None => None,
    };
    failure.into_fetch_error(&request.clause(), endpoint, hint)
}

/// Reads the response to an attempt that began at `start`.
fn read_token(kind: &TokenKind, body: &[u8], start: Now, now: Now) -> Result<Token, AttemptError> {
    let token = match kind {
        TokenKind::Access { .. } => parse::access_token(body, start, now),
        TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
            parse::id_token(body, audience, start, now)
        }
    };
    check_lateness(token, start, now)
}

// === impl MetadataClient ===

impl MetadataClient {
    /// Creates a client for this server. `timeout` limits one fetch with all its attempts (`--token-timeout`).
    pub fn new(server: &MetadataServer, timeout: Duration) -> Self {
        Self::with_search(server, timeout, None)
    }

    /// Like [`new`](Self::new), after a search that found no credential file. The first request probes for the server
    /// for at most a second. If there is none, the error also lists what was `searched`.
    pub(crate) fn with_search(
        server: &MetadataServer,
        timeout: Duration,
        searched: Option<Arc<str>>,
    ) -> Self {
        Self(Arc::new(MetadataInner {
            endpoint: MetadataEndpoint::new(&server.host, server.port),
            disabled: server.disabled,
            limits: FetchLimits::new(timeout),
            found: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            searched,
        }))
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        self.request(&MetadataRequest::token(key), priority, |body, start| {
            read_token(&key.kind, body, start, Now::now())
        })
        .await
    }

    async fn fetch_fact(&self, fact: Fact<'_>) -> Result<Option<String>, FetchError> {
        let answer = self.text(&MetadataRequest::fact(fact)).await;
        let is_missing = |error: &FetchError| error.status == Some(StatusCode::NOT_FOUND);
        match (fact, answer) {
            (Fact::Universe, Ok(text)) if text.is_empty() => Ok(None),
            (Fact::Universe, Err(error)) if is_missing(&error) => Ok(None),
            // A machine without a region, as on Compute Engine, uses the region of its zone.
            (Fact::Region, Err(error)) if is_missing(&error) => {
                self.text(&MetadataRequest::zone()).await.map(Some)
            }
            // Only advice depends on them.
            (Fact::Scopes(_), answer) => Ok(answer.ok()),
            (_, answer) => answer.map(Some),
        }
    }

    /// Fetches a text.
    async fn text(&self, request: &MetadataRequest) -> Result<String, FetchError> {
        self.request(request, &FetchPriority::high(), |body, _| {
            str::from_utf8(body.trim_ascii())
                .map(str::to_owned)
                .map_err(|_| AttemptError::malformed("the response is not text".to_owned()))
        })
        .await
    }

    /// Sends attempts until `read` accepts one, an error is final, or the time is up. `read` also gets the start of the
    /// attempt, from which lifetimes count.
    async fn request<T: Send>(
        &self,
        request: &MetadataRequest,
        priority: &FetchPriority,
        read: impl Fn(&[u8], Now) -> Result<T, AttemptError> + Sync,
    ) -> Result<T, FetchError> {
        let MetadataInner {
            endpoint,
            disabled,
            limits,
            searched,
            ..
        } = &*self.0;
        if *disabled {
            if let Some(searched) = searched {
                let detail = nothing_found_without_server(searched);
                return Err(self.nothing_found(TokenFault::Disabled, &detail));
            }
            return Err(FetchError::new(
                TokenFault::Disabled,
                &format!(
                    "{} cannot be obtained: {NO_METADATA_SERVER}",
                    request.clause()
                ),
            ));
        }
        self.probe(priority).await?;
        let fetched = limits.fetch(priority, || async {
            let start = Now::now();
            let answer = endpoint.get(&request.target).await?;
            read(&body(answer)?, start)
        });
        fetched
            .await
            .map_err(|error| failed(error, request, endpoint))
    }

    /// Ensures that a metadata server answers, unless one has answered before.
    async fn probe(&self, priority: &FetchPriority) -> Result<(), FetchError> {
        let MetadataInner {
            endpoint,
            limits,
            searched,
            found,
            ..
        } = &*self.0;
        let Some(searched) = searched.as_ref().filter(|_| !found.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let probed = limits.fetch_within(PROBE_TIMEOUT, priority, || async {
            let answer = endpoint.get("/").await?;
            check_flavor(&answer.head)
        });
        match probed.await {
            Ok(()) => {
                found.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(failure) => {
                let why = format!(
                    "the metadata server at {endpoint}: {}",
                    failure.error.reason
                );
                let detail = nothing_found(searched, &why);
                Err(self.nothing_found(TokenFault::NothingFound, &detail))
            }
        }
    }

    /// Returns the error of a search that found nothing.
    fn nothing_found(&self, fault: TokenFault, detail: &str) -> FetchError {
        let mut error = FetchError::new(fault, detail);
        error.is_repeated = self.0.reported.swap(true, Ordering::Relaxed);
        error
    }
}

impl TokenSource for MetadataClient {
    fn describe(&self) -> &'static str {
        "the metadata server"
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Metadata
    }

    fn serves(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Attached | Principal::Account(_))
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        Box::pin(self.token(key, priority))
    }

    fn time_limit(&self) -> Duration {
        self.0.limits.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        Box::pin(self.fetch_fact(fact))
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
            TransportError::ConnectionBroken(_) => Self {
                retry: true,
                ..Self::new(TokenFault::Failing, error.to_string())
            },
            // Another server listens there: it would give the same response again.
            TransportError::NoHttp => Self::new(TokenFault::WrongServer, error.to_string()),
            TransportError::TooLong(_) => Self::malformed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
