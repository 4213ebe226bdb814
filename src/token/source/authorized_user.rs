//! A user's login: exchanges its refresh token for access tokens and ID tokens (RFC 6749, 6).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::endpoint::EndpointClient;
use super::lateness::check_lateness;
use super::{FetchFuture, TokenSource, login, message};
use crate::credentials::AuthorizedUser;
use crate::error::{SourceKind, TokenFault};
use crate::policy::{DEFAULT_UNIVERSE, Principal, TokenKey, TokenKind, user_id_tokens};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::logins::{Logins, RefreshToken};
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

const LOG_IN: &str = "log in again: `gcloud auth application-default login`, then send SIGHUP to the sidecar or restart it";

/// Issues the tokens of one login.
#[derive(Debug)]
pub(super) struct AuthorizedUserSource {
    file: AuthorizedUser,
    name: String,
    client: EndpointClient,
    refresh_token: Arc<RefreshToken>,
}

// === impl AuthorizedUserSource ===

impl AuthorizedUserSource {
    /// Creates the source. `name` names the file in messages.
    pub(super) fn new(
        file: AuthorizedUser,
        name: String,
        client: EndpointClient,
        logins: &Logins,
    ) -> Self {
        Self {
            refresh_token: logins.refresh_token(
                &file.token_url,
                &file.client_id,
                &file.refresh_token,
            ),
            file,
            name,
            client,
        }
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        let scopes = match &key.kind {
            TokenKind::Access { scopes } => scopes.join(" "),
            TokenKind::Id { audience } if **audience == *self.file.client_id => String::new(),
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => return Err(self.unsupported(key)),
        };
        let what = format!("{} (of {})", message::token(&key.kind), self.name);
        let attempt = || async {
            let mut refresh_token = self.refresh_token.0.lock().await;
            let mut fields = vec![
                ("grant_type", "refresh_token"),
                ("client_id", &*self.file.client_id),
                ("client_secret", &*self.file.client_secret),
                ("refresh_token", &**refresh_token),
            ];
            if !scopes.is_empty() {
                fields.push(("scope", &scopes));
            }
            let start = Now::now();
            let url = &self.file.token_url;
            let body = self
                .client
                .post_form(url, HeaderMap::new(), &fields)
                .await?;
            if let Some(rotated) = parse::refresh_token(&body) {
                *refresh_token = rotated.into();
            }
            let now = Now::now();
            let token = match &key.kind {
                TokenKind::Access { .. } => parse::access_token(&body, start, now),
                TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
                    parse::id_token_in("id_token", &body, audience, start, now)
                }
            };
            check_lateness(token, start, now)
        };
        let hint =
            |error: &_| login::scope_hint(error, &scopes).or_else(|| login::hint(error, LOG_IN));
        self.client
            .fetch(&what, &self.file.token_url, priority, attempt, hint)
            .await
    }

    /// Returns the error for tokens that a login cannot get. The audience of its ID tokens is always the OAuth client's
    /// id.
    fn unsupported(&self, key: &TokenKey) -> FetchError {
        let detail = format!(
            "{} cannot be obtained from {}: {}",
            message::token(&key.kind),
            self.name,
            user_id_tokens(&self.file.client_id)
        );
        FetchError::new(TokenFault::Unsupported, &detail)
    }
}

impl TokenSource for AuthorizedUserSource {
    fn describe(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::AuthorizedUser
    }

    fn serves(&self, principal: &Principal) -> bool {
        *principal == Principal::Attached
    }

    /// Accepts every kind, so that `fetch` returns the reason for each unsupported one.
    fn issues(&self, _: &TokenKind) -> bool {
        true
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
            Fact::Email(_) => self.file.email.as_deref(),
            Fact::Universe => Some(DEFAULT_UNIVERSE),
            // The quota project may be another one than that of the app's resources.
            Fact::ProjectId | Fact::ProjectNumber | Fact::Region | Fact::Scopes(_) => None,
        };
        Box::pin(std::future::ready(Ok(known.map(str::to_owned))))
    }
}
