//! Workload and workforce identity federation: exchanges a subject token at the Security Token Service (RFC 8693).
//!
//! If the file names a service account, this source serves as the [source](super::nested::NestedSource) whose
//! federated token gets the account's tokens, including ID tokens. An access token of the account itself would need a
//! role on the account itself; `roles/iam.workloadIdentityUser` would not be enough.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use tokio::time::Instant;

use super::endpoint::EndpointClient;
use super::iam::CLOUD_PLATFORM;
use super::lateness::check_lateness;
use super::subject::SubjectTokens;
use super::{FetchFuture, TokenSource, message};
use crate::credentials::{ExternalAccount, OAuthClient};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{FEDERATED_ID_TOKENS, Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::token::value::Token;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const REQUESTED: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Issues the tokens of one federated principal.
pub(super) struct ExternalAccountSource {
    file: ExternalAccount,
    name: String,
    client: EndpointClient,
    subject: SubjectTokens,
}

// === impl ExternalAccountSource ===

impl ExternalAccountSource {
    /// Creates the source. `name` names the file in messages. `local` sends requests to this machine and its link.
    pub(super) fn new(
        file: ExternalAccount,
        name: String,
        client: EndpointClient,
        local: EndpointClient,
    ) -> Self {
        Self {
            subject: SubjectTokens::new(file.source.clone(), &file.audience, client.clone(), local),
            file,
            name,
            client,
        }
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        match &key.kind {
            TokenKind::Access { scopes } => self.exchange(scopes, priority).await,
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => Err(FetchError::new(
                TokenFault::Unsupported,
                &format!(
                    "{} cannot be obtained from {}: {FEDERATED_ID_TOKENS}",
                    message::token(&key.kind),
                    self.name,
                ),
            )),
        }
    }

    /// Exchanges a subject token.
    async fn exchange(
        &self,
        scopes: &[Arc<str>],
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        let end = Instant::now() + self.subject.own_time() + self.client.timeout();
        let subject = self.subject.token(priority, end).await?;
        let scope = if scopes.is_empty() {
            CLOUD_PLATFORM.to_owned()
        } else {
            scopes.join(" ")
        };
        let user_project = self.file.user_project.as_ref();
        let options = user_project
            // The Security Token Service knows the project of an OAuth client.
            .filter(|_| self.file.client.is_none())
            .map(|project| json!({ "userProject": &**project }).to_string());
        let mut fields = vec![
            ("grant_type", GRANT_TYPE),
            ("audience", &*self.file.audience),
            ("scope", &scope),
            ("requested_token_type", REQUESTED),
            ("subject_token", &subject),
            ("subject_token_type", &*self.file.subject_token_type),
        ];
        if let Some(options) = &options {
            fields.push(("options", options));
        }
        let headers = self.file.client.as_ref().map(basic).unwrap_or_default();
        let url = &self.file.token_url;
        let attempt = || async {
            let start = Now::now();
            let body = self.client.post_form(url, headers.clone(), &fields).await?;
            let now = Now::now();
            check_lateness(parse::access_token(&body, start, now), start, now)
        };
        let what = format!("a federated access token (of {})", self.name);
        let left = end.saturating_duration_since(Instant::now());
        let fetched = self
            .client
            .fetch_within(left, &what, url, priority, attempt, |error| {
                self.hint(error)
            })
            .await;
        if let Err(error) = &fetched
            && error.status.is_some_and(|status| status.is_client_error())
        {
            self.subject.rejected().await;
        }
        fetched
    }

    /// Returns advice for a refusal of the Security Token Service.
    fn hint(&self, error: &AttemptError) -> Option<String> {
        let advice = self.advice(error)?;
        Some(match error.time_hint() {
            Some(hint) => format!("{advice}; {hint}"),
            None => advice,
        })
    }

    fn advice(&self, error: &AttemptError) -> Option<String> {
        let source = &self.subject;
        Some(match error.code.as_deref()? {
            "invalid_grant" => format!(
                "the subject token comes from {source}: see that it has not expired, and that its issuer and audience are \
                 those of the provider"
            ),
            "unauthorized_client" => format!(
                "the subject token comes from {source}: see that it meets the attribute condition of the provider"
            ),
            "invalid_request" | "invalid_target" => format!(
                "see that the provider of the file's audience exists and is enabled; the subject token comes from {source}"
            ),
            "invalid_client" => {
                "see that client_id and client_secret of the file are valid".to_owned()
            }
            _ => return None,
        })
    }
}

/// Returns client authentication (RFC 6749, 2.3.1) in the standard base64 alphabet, as Google's libraries send it.
pub(super) fn basic(client: &OAuthClient) -> HeaderMap {
    let pair = STANDARD.encode(format!("{}:{}", client.id, client.secret));
    let mut headers = HeaderMap::new();
    // Base64 is always a valid header value.
    if let Ok(mut value) = HeaderValue::try_from(format!("Basic {pair}")) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    headers
}

impl TokenSource for ExternalAccountSource {
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
        self.subject.own_time() + self.client.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let project = self
            .file
            .quota_project
            .as_ref()
            .or(self.file.user_project.as_ref());
        let is_number =
            project.is_some_and(|project| project.bytes().all(|byte| byte.is_ascii_digit()));
        let known = match fact {
            Fact::ProjectId => project.filter(|_| !is_number),
            Fact::ProjectNumber => project.filter(|_| is_number),
            Fact::Universe => Some(&self.file.universe),
            // A federated principal has no e-mail address.
            Fact::Email(_) | Fact::Region | Fact::Scopes(_) => None,
        };
        Box::pin(std::future::ready(Ok(known.map(|known| known.to_string()))))
    }
}

impl fmt::Debug for ExternalAccountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccountSource")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
