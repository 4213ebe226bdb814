//! The client of Google's metadata server.
//!
//! It speaks HTTP/1.1 on a connection of its own for each attempt: the server is next door, and a connection kept while
//! the instance was frozen is worth nothing. It knows no proxy, because the app's proxy is this very sidecar, and follows
//! no redirect.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::answer::accept;
use super::limits::FetchLimits;
use super::message::words;
use super::{Fetching, TokenSource};
use crate::config::MetadataServer;
use crate::error::TokenFault;
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::facts::Fact;
use crate::token::failure::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::{AttemptError, RetryError};
use crate::token::value::Token;

mod request;
mod transport;

use request::MetadataRequest;
use transport::{Peer, Response, TransportError};

/// Asks the metadata server; clones share its limits.
#[derive(Clone, Debug)]
pub struct MetadataClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: Peer,
    disabled: bool,
    limits: FetchLimits,
}

// === impl MetadataClient ===

impl MetadataClient {
    /// A client for this server. `timeout` is for one fetch with all its attempts (`--token-timeout`).
    pub fn new(server: &MetadataServer, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            peer: Peer::new(&server.host, server.port),
            disabled: server.disabled,
            limits: FetchLimits::new(timeout),
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
            limits,
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
        let fetched = limits.fetch(priority, || async {
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
        self.0.limits.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> Fetching<'a, Option<String>> {
        Box::pin(self.known(fact))
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
    Err(AttemptError::answered(
        status,
        &answer.head.headers,
        words(&answer.body).map(|words| format!("{words:?}")),
    ))
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
        TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
            parse::id_token(body, audience, start, now)
        }
    };
    accept(token, start, now)
}

#[cfg(test)]
mod tests;
