//! Access tokens of a Google Workspace user by domain-wide delegation (`subject=`). A service account signs an
//! assertion with `signJwt`, and the token endpoint exchanges it (RFC 7523).
//!
//! Source: <https://developers.google.com/identity/protocols/oauth2/service-account>, "Delegating domain-wide
//! authority".

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::impersonation::Impersonator;
use super::lateness::check_lateness;
use super::message::token as token_clause;
use super::signed_jwt::validity;
use super::{FetchFuture, TokenSource, iam};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{DEFAULT_UNIVERSE, Delegated, Principal, TokenKey};
use crate::token::clock::Now;
use crate::token::fact::Fact;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::token::value::Token;

/// The token endpoint, and the audience of every assertion.
pub(super) const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Issues tokens of users on whose behalf a service account acts.
#[derive(Debug)]
pub(super) struct DelegationSource(pub(super) Arc<Impersonator>);

/// Returns the claims of an assertion: the account acts on behalf of the user.
pub(super) fn claims(email: &str, subject: &str, scopes: &str, now: SystemTime) -> Value {
    let (issued, expires) = validity(now);
    json!({
        "iss": email,
        "sub": subject,
        "scope": scopes,
        "aud": TOKEN_ENDPOINT,
        "iat": issued,
        "exp": expires,
    })
}

/// Returns the form fields that exchange an assertion for a token.
pub(super) fn fields(assertion: &str) -> [(&str, &str); 2] {
    [("grant_type", JWT_BEARER), ("assertion", assertion)]
}

/// Fails in another universe, because only googleapis.com has the token endpoint.
pub(super) fn check_universe(universe: &str, subject: &str) -> Result<(), FetchError> {
    if universe == DEFAULT_UNIVERSE {
        return Ok(());
    }
    Err(FetchError::new(
        TokenFault::Refused,
        &format!(
            "an access token of {subject}: domain-wide delegation (subject=) exists only in the universe {DEFAULT_UNIVERSE}, \
             and this is {universe}"
        ),
    ))
}

/// Returns the error for any other kind of token.
pub(super) fn access_only(key: &TokenKey) -> FetchError {
    let detail = format!(
        "{}: only access tokens are issued for a user",
        key.principal
    );
    FetchError::new(TokenFault::Refused, &detail)
}

/// Maps the fault of a response of the token endpoint to its meaning for delegation.
pub(super) fn named(error: AttemptError) -> AttemptError {
    match error.code.as_deref() {
        Some("unauthorized_client" | "access_denied") => AttemptError {
            fault: TokenFault::NotDelegated,
            ..error
        },
        _ => error,
    }
}

/// Returns advice for a response of the token endpoint.
pub(super) fn hint(error: &AttemptError, email: &str, subject: &str) -> Option<String> {
    if error.fault == TokenFault::NotDelegated {
        return Some(format!(
            "in the Admin console of the user's domain, under domain-wide delegation, authorize the client id of {email} \
             for these scopes"
        ));
    }
    match error.code.as_deref()? {
        "invalid_grant" => Some(error.or_clock(format!("is {subject} a user of the domain?"))),
        _ => None,
    }
}

// === impl DelegationSource ===

impl DelegationSource {
    async fn token(
        &self,
        delegated: &Delegated,
        key: &TokenKey,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        let Some(scopes) = key.scopes() else {
            return Err(access_only(key));
        };
        let subject = &delegated.subject;
        let end = Instant::now() + self.0.timeout();
        let client = self.0.client()?;
        let signer = self.0.signer_of_itself(&delegated.issuer, end).await?;
        check_universe(&signer.universe, subject)?;
        let account = &signer.account;
        let email = account.email();
        let mut caller_token = self.0.caller_token(&signer, end).await?;
        let claims = claims(email, subject, &scopes, Now::now().wall);
        let what = format!("an assertion for {subject}");
        let assertion = loop {
            let caller = caller_token.caller();
            match iam::sign_jwt(client, account, caller, &claims, &what, priority, end).await {
                Err(error) if caller_token.renew(&error).await => {}
                result => break result?,
            }
        };
        let what = format!("{} of {subject} (account {email})", token_clause(&key.kind));
        let time = end.saturating_duration_since(Instant::now());
        let attempt = || async {
            let start = Now::now();
            let form = fields(&assertion);
            let answer = client
                .post_form(&TOKEN_ENDPOINT, HeaderMap::new(), &form)
                .await
                .map_err(named)?;
            let now = Now::now();
            check_lateness(parse::access_token(&answer, start, now), start, now)
        };
        client
            .fetch_within(time, &what, &TokenEndpoint, priority, attempt, |error| {
                hint(error, email, subject)
            })
            .await
    }
}

impl TokenSource for DelegationSource {
    fn describe(&self) -> &'static str {
        "domain-wide delegation"
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Impersonation
    }

    fn serves(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Delegated(_))
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        Box::pin(async move {
            match &key.principal {
                Principal::Delegated(delegated) => self.token(delegated, key, priority).await,
                other => Err(FetchError::new(
                    TokenFault::Refused,
                    &format!("{other} is not a user for whom an account acts"),
                )),
            }
        })
    }

    fn time_limit(&self) -> Duration {
        self.0.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let email = match fact {
            Fact::Email(principal) => principal.account().map(str::to_owned),
            _ => None,
        };
        Box::pin(std::future::ready(Ok(email)))
    }
}

/// Names the token endpoint in a message.
struct TokenEndpoint;

impl fmt::Display for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("oauth2.googleapis.com")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_names_account_user_and_scopes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(
            claims("a@p.example", "jane@d.example", "s1 s2", now),
            json!({
                "iss": "a@p.example",
                "sub": "jane@d.example",
                "scope": "s1 s2",
                "aud": "https://oauth2.googleapis.com/token",
                "iat": 999_990,
                "exp": 1_003_590,
            })
        );
    }

    #[test]
    fn another_universe_has_no_delegation() {
        check_universe("googleapis.com", "u").unwrap();
        let error = check_universe("example.goog", "u").unwrap_err();
        assert!(
            error
                .detail()
                .contains("only in the universe googleapis.com"),
            "{error:?}"
        );
        assert!(error.detail().contains("example.goog"), "{error:?}");
    }
}
