//! A login of a workforce pool: exchanges its refresh token for access tokens at the Security Token Service.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::EndpointClient;
use super::external_account::basic;
use super::lateness::check_lateness;
use super::{FetchFuture, TokenSource, login, message};
use crate::credentials::ExternalAccountAuthorizedUser;
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey, TokenKind, WORKFORCE_ID_TOKENS};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::logins::{Logins, RefreshToken};
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

const LOG_IN: &str = "log in again: `gcloud auth application-default login --login-config=FILE`, then send SIGHUP to the sidecar or \
                      restart it";

/// Issues the tokens of one login.
pub(super) struct WorkforceUserSource {
    file: ExternalAccountAuthorizedUser,
    name: String,
    client: EndpointClient,
    refresh_token: Arc<RefreshToken>,
}

// === impl WorkforceUserSource ===

impl WorkforceUserSource {
    /// Creates the source. `name` names the file in messages.
    pub(super) fn new(
        file: ExternalAccountAuthorizedUser,
        name: String,
        client: EndpointClient,
        logins: &Logins,
    ) -> Self {
        Self {
            refresh_token: logins.refresh_token(
                &file.token_url,
                &file.client.id,
                &file.refresh_token,
            ),
            file,
            name,
            client,
        }
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        let what = message::token(&key.kind);
        // The login determines the scopes.
        if !matches!(key.kind, TokenKind::Access { .. }) {
            let detail = format!(
                "{what} cannot be obtained from {}: {WORKFORCE_ID_TOKENS}",
                self.name
            );
            return Err(FetchError::new(TokenFault::Unsupported, &detail));
        }
        let url = &self.file.token_url;
        let attempt = || async {
            let mut refresh_token = self.refresh_token.0.lock().await;
            let fields = [
                ("grant_type", "refresh_token"),
                ("refresh_token", &**refresh_token),
            ];
            let start = Now::now();
            let headers = basic(&self.file.client);
            let body = self.client.post_form(url, headers, &fields).await?;
            if let Some(rotated) = parse::refresh_token(&body) {
                *refresh_token = rotated.into();
            }
            let now = Now::now();
            check_lateness(parse::access_token(&body, start, now), start, now)
        };
        let what = format!("{what} (of {})", self.name);
        let hint = |error: &_| login::hint(error, LOG_IN);
        self.client.fetch(&what, url, priority, attempt, hint).await
    }
}

impl TokenSource for WorkforceUserSource {
    fn describe(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Sts
    }

    fn serves(&self, principal: &Principal) -> bool {
        *principal == Principal::Attached
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        Box::pin(self.token(key, priority))
    }

    fn time_limit(&self) -> Duration {
        self.client.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let known = match fact {
            Fact::Universe => Some(&self.file.universe),
            // The quota project may be another one than that of the app's resources.
            Fact::Email(_)
            | Fact::ProjectId
            | Fact::ProjectNumber
            | Fact::Region
            | Fact::Scopes(_) => None,
        };
        Box::pin(std::future::ready(Ok(known.map(|known| known.to_string()))))
    }
}

/// Omits the refresh token.
impl fmt::Debug for WorkforceUserSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkforceUserSource")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
