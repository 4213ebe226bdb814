//! The key of a service account: signs access tokens, and exchanges signed assertions for ID tokens.
//!
//! Google APIs accept a JWT that the account signed as an access token, without any request. Other receivers know only
//! the access tokens of the token endpoint. For scopes about the account (`openid`, `email`, `userinfo.email`) the
//! source therefore exchanges an assertion (RFC 7523).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use serde::Serialize;
use serde_json::json;

use super::endpoint::{self, EndpointClient};
use super::lateness::check_lateness;
use super::{FetchFuture, TokenSource, delegation, jwt, message};
use crate::credentials::{EndpointUrl, ServiceAccount};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{CLOUD_PLATFORM, DEFAULT_UNIVERSE, Delegated, Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::token::value::Token;

/// The lifetime of a JWT: the maximum that Google accepts.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// The time by which `iat` lies in the past, for receivers whose clocks are behind.
const BACK_DATED: Duration = Duration::from_secs(10);
/// The `aud` of every assertion, independent of the endpoint's URL.
const ASSERTION_AUDIENCE: &str = delegation::TOKEN_ENDPOINT;
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const API_SCOPES: &str = "https://www.googleapis.com/auth/";
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";
const USER_INFO: &str = "userinfo.";

/// Issues the tokens of one service account.
#[derive(Debug)]
pub(super) struct ServiceAccountSource {
    file: ServiceAccount,
    name: String,
    client: EndpointClient,
}

/// The claims of a JWT that the account signs. Absent claims are omitted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct JwtClaims<'a> {
    pub(super) iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_audience: Option<&'a str>,
    iat: u64,
    exp: u64,
}

/// The result of an exchange.
#[derive(Clone, Copy)]
enum ExchangedToken<'a> {
    /// An ID token for this audience.
    Audience(&'a str),
    /// An access token of these scopes.
    Scope(&'a str),
    /// An access token of this user with these scopes.
    Delegated(&'a str, &'a str),
}

// === impl ServiceAccountSource ===

impl ServiceAccountSource {
    /// Creates the source. `name` names the file in messages.
    pub(super) fn new(file: ServiceAccount, name: String, client: EndpointClient) -> Self {
        Self { file, name, client }
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        let email = &*self.file.email;
        if let Principal::Delegated(delegated) = &key.principal {
            return self.delegated(delegated, key, priority).await;
        }
        match &key.kind {
            TokenKind::Access { scopes } if self.is_self_signed(scopes) => {
                let scope = joined(scopes);
                self.self_signed(JwtClaims {
                    sub: Some(email),
                    scope: Some(&scope),
                    ..JwtClaims::default()
                })
            }
            TokenKind::Access { scopes } => {
                let scope = joined(scopes);
                let read = |body: &[u8], start, now| parse::access_token(body, start, now);
                self.exchanged(key, ExchangedToken::Scope(&scope), priority, read)
                    .await
            }
            TokenKind::Id { audience } if *self.file.universe == *DEFAULT_UNIVERSE => {
                let read = |body: &[u8], start, now| {
                    parse::id_token_in("id_token", body, audience, start, now)
                };
                self.exchanged(key, ExchangedToken::Audience(audience), priority, read)
                    .await
            }
            TokenKind::Id { audience } => self.by_iam(key, audience, priority).await,
            TokenKind::Jwt { audience } => self.self_signed(JwtClaims {
                sub: Some(email),
                aud: Some(audience),
                ..JwtClaims::default()
            }),
        }
    }

    /// Returns whether an access token of these scopes is self-signed. Other universes support no other kind.
    fn is_self_signed(&self, scopes: &[Arc<str>]) -> bool {
        *self.file.universe != *DEFAULT_UNIVERSE
            || scopes.iter().all(|scope| {
                let api = scope.strip_prefix(API_SCOPES);
                api.is_some_and(|api| !api.starts_with(USER_INFO))
            })
    }

    /// Returns a self-signed JWT as the token.
    fn self_signed(&self, claims: JwtClaims<'_>) -> Result<Token, FetchError> {
        let now = Now::now();
        let jwt = self.sign(claims).ok_or_else(|| self.signing_failed())?;
        Token::new(&jwt, now.after(LIFETIME - BACK_DATED), now).ok_or_else(|| self.signing_failed())
    }

    /// Exchanges an assertion at the token endpoint.
    async fn exchanged(
        &self,
        key: &TokenKey,
        wanted: ExchangedToken<'_>,
        priority: &FetchPriority,
        read: impl Fn(&[u8], Now, Now) -> Result<Token, parse::Malformed> + Sync,
    ) -> Result<Token, FetchError> {
        let what = self.what(key);
        let url = &self.file.token_url;
        let wanted = match wanted {
            ExchangedToken::Audience(audience) => JwtClaims {
                target_audience: Some(audience),
                ..JwtClaims::default()
            },
            ExchangedToken::Scope(scope) => JwtClaims {
                scope: Some(scope),
                ..JwtClaims::default()
            },
            ExchangedToken::Delegated(subject, scope) => JwtClaims {
                sub: Some(subject),
                scope: Some(scope),
                ..JwtClaims::default()
            },
        };
        let attempt = || async {
            let start = Now::now();
            let assertion = self.sign(JwtClaims {
                aud: Some(ASSERTION_AUDIENCE),
                ..wanted
            });
            let assertion = assertion.ok_or_else(|| self.attempt_failed())?;
            let fields = [("assertion", &*assertion), ("grant_type", GRANT_TYPE)];
            let answer = self.client.post_form(url, HeaderMap::new(), &fields).await;
            let body = match &key.principal {
                Principal::Delegated(_) => answer.map_err(delegation::named)?,
                _ => answer?,
            };
            let now = Now::now();
            check_lateness(read(&body, start, now), start, now)
        };
        self.client
            .fetch(&what, url, priority, attempt, |error| {
                let user = match &key.principal {
                    Principal::Delegated(delegated) => Some(&*delegated.subject),
                    _ => None,
                };
                let of_user = user.and_then(|user| delegation::hint(error, &self.file.email, user));
                of_user.or_else(|| self.hint(error))
            })
            .await
    }

    /// Fetches an access token of a user on whose behalf the account acts.
    async fn delegated(
        &self,
        delegated: &Delegated,
        key: &TokenKey,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        let TokenKind::Access { scopes } = &key.kind else {
            return Err(delegation::access_only(key));
        };
        let subject = &delegated.subject;
        delegation::check_universe(&self.file.universe, subject)?;
        let scope = joined(scopes);
        let read = |body: &[u8], start, now| parse::access_token(body, start, now);
        self.exchanged(
            key,
            ExchangedToken::Delegated(subject, &scope),
            priority,
            read,
        )
        .await
    }

    /// Fetches an ID token from the IAM Credentials API, because other universes have no token endpoint.
    async fn by_iam(
        &self,
        key: &TokenKey,
        audience: &str,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        let email = &*self.file.email;
        let what = self.what(key);
        let path = format!("/v1/projects/-/serviceAccounts/{email}:generateIdToken");
        let url = EndpointUrl::of_google("iamcredentials", &self.file.universe, &path);
        let url = url.ok_or_else(|| {
            let detail = format!("{what}: the URL of the IAM Credentials API is invalid");
            FetchError::new(TokenFault::Aborted, &detail)
        })?;
        let attempt = || async {
            let start = Now::now();
            let bearer = self.sign(JwtClaims {
                sub: Some(email),
                scope: Some(IAM_SCOPE),
                ..JwtClaims::default()
            });
            let headers = bearer
                .as_deref()
                .and_then(endpoint::bearer)
                .ok_or_else(|| self.attempt_failed())?;
            let body = json!({"audience": audience, "includeEmail": true, "useEmailAzp": true});
            let body = self.client.post_json(&url, headers, &body).await?;
            let now = Now::now();
            let token = parse::id_token_in("token", &body, audience, start, now);
            check_lateness(token, start, now)
        };
        self.client
            .fetch(&what, &url, priority, attempt, |error| self.hint(error))
            .await
    }

    /// Signs these claims and the usual times. Returns `None` if the key cannot sign.
    fn sign(&self, claims: JwtClaims<'_>) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let iat = now.unwrap_or_default().saturating_sub(BACK_DATED).as_secs();
        let claims = JwtClaims {
            iss: &self.file.email,
            iat,
            exp: iat + LIFETIME.as_secs(),
            ..claims
        };
        jwt::sign(&self.file.key, self.file.key_id.as_deref(), &claims)
    }

    fn signing_failed(&self) -> FetchError {
        FetchError::new(TokenFault::Aborted, &self.signing_failure())
    }

    /// Like [`signing_failed`](Self::signing_failed), for one attempt. No request is sent.
    fn attempt_failed(&self) -> AttemptError {
        AttemptError::new(TokenFault::Aborted, self.signing_failure())
    }

    fn signing_failure(&self) -> String {
        format!("no JWT could be signed with the key of {}", self.name)
    }

    /// Names the requested token in a message.
    fn what(&self, key: &TokenKey) -> String {
        let user = match &key.principal {
            Principal::Delegated(delegated) => format!(" of {}", delegated.subject),
            _ => String::new(),
        };
        format!(
            "{}{user} (account {})",
            message::token(&key.kind),
            self.file.email
        )
    }

    fn hint(&self, error: &AttemptError) -> Option<String> {
        let is_of_iam = *self.file.universe != *DEFAULT_UNIVERSE;
        if is_of_iam && error.code.as_deref() == Some("PERMISSION_DENIED") {
            let email = &self.file.email;
            return Some(format!(
                "grant roles/iam.serviceAccountOpenIdTokenCreator on {email} to {email} itself, for in the universe {} \
                 the IAM Credentials API issues its ID tokens",
                self.file.universe
            ));
        }
        let refused = matches!(
            error.code.as_deref(),
            Some("invalid_grant" | "UNAUTHENTICATED")
        );
        if !refused {
            return None;
        }
        let key = format!(
            "was the key of {} deleted or disabled, or the account?",
            self.name
        );
        Some(error.or_clock(key))
    }
}

impl TokenSource for ServiceAccountSource {
    fn describe(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::ServiceAccount
    }

    fn serves(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Delegated(delegated) => delegated.issuer == Principal::Attached,
            principal => *principal == Principal::Attached,
        }
    }

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
            Fact::Email(Principal::Delegated(delegated)) => Some(&delegated.subject),
            Fact::Email(_) => Some(&self.file.email),
            Fact::ProjectId => self.file.project.as_ref(),
            Fact::Universe => Some(&self.file.universe),
            Fact::ProjectNumber | Fact::Region | Fact::Scopes(_) => None,
        };
        Box::pin(std::future::ready(Ok(known.map(ToString::to_string))))
    }
}

/// Joins the scopes of a key into one text.
fn joined(scopes: &[Arc<str>]) -> String {
    match scopes {
        [] => CLOUD_PLATFORM.to_owned(),
        scopes => scopes.join(" "),
    }
}

#[cfg(test)]
mod tests;
