//! JWTs that a service account signs with `signJwt` (`token=jwt`). Identity-Aware Proxy accepts them.
//!
//! Source: <https://cloud.google.com/iap/docs/authentication-howto>, "Authenticate with a service account JWT".

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::impersonation::Impersonator;
use super::lateness::check_lateness;
use super::message::token as token_clause;
use super::{FetchFuture, TokenSource, iam};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::token::clock::Now;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

/// The time by which `iat` lies in the past, for a server whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(10);
/// The maximum lifetime that IAP accepts.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// Requests signatures of an account's own tokens.
#[derive(Debug)]
pub(super) struct SignedJwtSource(pub(super) Arc<Impersonator>);

/// Returns the claims that IAP expects of an account. They are valid for an hour.
pub(super) fn claims(email: &str, audience: &str, now: SystemTime) -> Value {
    let (issued, expires) = validity(now);
    json!({"iss": email, "sub": email, "aud": audience, "iat": issued, "exp": expires})
}

/// Returns `iat` and `exp`, at most an hour apart.
pub(super) fn validity(now: SystemTime) -> (u64, u64) {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let issued = since_epoch.saturating_sub(BACKDATED).as_secs();
    (issued, issued.saturating_add(LIFETIME.as_secs()))
}

// === impl SignedJwtSource ===

impl SignedJwtSource {
    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        let Some(audience) = key.audience() else {
            return Err(FetchError::new(TokenFault::Refused, "only a JWT is signed"));
        };
        let end = Instant::now() + self.0.timeout();
        let client = self.0.client()?;
        let signer = self.0.signer_of_itself(&key.principal, end).await?;
        let account = &signer.account;
        let what = token_clause(&key.kind);
        let mut caller_token = self.0.caller_token(&signer, end).await?;
        let start = Now::now();
        let claims = claims(account.email(), audience, start.wall);
        let jwt = loop {
            let caller = caller_token.caller();
            match iam::sign_jwt(client, account, caller, &claims, &what, priority, end).await {
                Err(error) if caller_token.renew(&error).await => {}
                result => break result?,
            }
        };
        let now = Now::now();
        let token = parse::id_token(jwt.as_bytes(), audience, start, now);
        check_lateness(token, start, now).map_err(|error| {
            FetchError::new(
                error.fault,
                &format!("{what} signed by {account}: {}", error.reason),
            )
        })
    }
}

impl TokenSource for SignedJwtSource {
    fn describe(&self) -> &'static str {
        "the IAM Credentials API"
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Impersonation
    }

    fn serves(&self, principal: &Principal) -> bool {
        !matches!(principal, Principal::Delegated(_))
    }

    fn issues(&self, kind: &TokenKind) -> bool {
        matches!(kind, TokenKind::Jwt { .. })
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        Box::pin(self.token(key, priority))
    }

    fn time_limit(&self) -> Duration {
        self.0.timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_are_backdated_and_valid_for_at_most_an_hour() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(
            claims("a@p.example", "https://x/*", now),
            json!({
                "iss": "a@p.example",
                "sub": "a@p.example",
                "aud": "https://x/*",
                "iat": 999_990,
                "exp": 1_003_590,
            })
        );
    }
}
