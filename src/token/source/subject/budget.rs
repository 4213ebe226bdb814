//! The deadline and the clients for the requests of one subject token.

use std::fmt;

use tokio::time::Instant;

use crate::credentials::SourceUrl;
use crate::error::TokenFault;
use crate::token::fetch_error::FetchError;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::token::source::endpoint::EndpointClient;

/// The clients for the requests of one subject token, and their common deadline.
pub(super) struct Budget<'a> {
    pub(super) client: &'a EndpointClient,
    pub(super) local: &'a EndpointClient,
    pub(super) priority: &'a FetchPriority,
    pub(super) end: Instant,
}

// === impl Budget ===

impl Budget<'_> {
    /// Returns the client for requests to this URL.
    pub(super) fn client(&self, url: &SourceUrl) -> &EndpointClient {
        if url.is_local() {
            self.local
        } else {
            self.client
        }
    }

    /// Repeats `attempt` like any fetch, within the remaining time. `hint` is the advice if there is no response. It
    /// may be empty. A refusal for time gets a hint about the clock.
    pub(super) async fn fetch<'f, T, F>(
        &self,
        what: &str,
        endpoint: &(dyn fmt::Display + Sync),
        attempt: impl FnMut() -> F + Send,
        hint: &str,
    ) -> Result<T, FetchError>
    where
        T: Send + 'f,
        F: Future<Output = Result<T, AttemptError>> + Send + 'f,
    {
        let left = self.end.saturating_duration_since(Instant::now());
        let hint = |error: &AttemptError| {
            let is_silent = error.status.is_none() && error.fault == TokenFault::TimedOut;
            let silent = (is_silent && !hint.is_empty()).then(|| hint.to_owned());
            let is_refusal = error.status.is_some_and(|status| status.is_client_error());
            silent.or_else(|| error.time_hint().filter(|_| is_refusal))
        };
        let fetch = self
            .client
            .fetch_within(left, what, endpoint, self.priority, attempt, hint);
        fetch.await
    }
}

/// Returns the error of a source that is not an endpoint.
pub(super) fn no_token(source: &str, why: &impl fmt::Display) -> FetchError {
    FetchError::new(
        TokenFault::NoSubjectToken,
        &format!("the subject token of {source}: {why}"),
    )
}
