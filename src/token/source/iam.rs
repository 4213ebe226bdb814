//! A client of the IAM Credentials API. It gets tokens and signatures of a service account with a token of another
//! identity.
//!
//! Source: <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts>.

mod target_account;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

pub(super) use self::target_account::TargetAccount;
use super::endpoint::{EndpointClient, bearer};
use super::lateness::check_lateness;
use super::message::{printable, token as token_clause};
use crate::error::TokenFault;
use crate::policy::{Principal, TokenKind};
use crate::token::clock::Now;
use crate::token::facts::Facts;
use crate::token::fetch_error::FetchError;
use crate::token::parse;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::token::value::Token;

/// The scope that a token needs to call the API.
pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The maximum lifetime of Google's tokens without a policy of the organisation.
pub(super) const LIFETIME: Duration = Duration::from_secs(3_600);

/// The project whose quota a call uses.
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// The time that a message waits for the name of the caller.
const NAME_TIMEOUT: Duration = Duration::from_millis(500);

/// The caller, and its token.
#[derive(Clone, Copy)]
pub(super) struct IamCaller<'a> {
    pub(super) token: &'a Token,
    /// The principal of the token.
    pub(super) principal: &'a Principal,
    /// The name of the caller if it has no e-mail address.
    pub(super) holder: Option<&'a str>,
    pub(super) facts: &'a Facts,
    /// The role that the caller needs on the first account of the chain.
    pub(super) role: RequiredRole,
    /// The project that pays for the call, if the caller's credential file names one.
    pub(super) quota_project: Option<&'a HeaderValue>,
}

/// The roles that let a caller use an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredRole {
    TokenCreator,
    WorkloadIdentityUser,
}

/// A call: its method, its result, and its deadline.
struct Call<'a> {
    account: &'a TargetAccount,
    method: &'static str,
    what: String,
    body: Value,
    end: Instant,
}

// === impl IamCaller ===

impl IamCaller<'_> {
    /// Returns the name of the caller for a message: the e-mail address, if it is known.
    fn name(&self) -> String {
        match self.facts.email_if_known(self.principal) {
            Some(email) => email.to_string(),
            None => match self.holder {
                Some(holder) => holder.to_owned(),
                None => self.principal.to_string(),
            },
        }
    }

    /// Returns whether the token is a JWT of a key file. Google's own access tokens are no JWTs.
    fn is_self_signed(&self) -> bool {
        self.token.reveal().starts_with("eyJ")
    }

    /// Learns the e-mail address of the caller for a message, if it is available soon.
    async fn learn_name(&self) {
        if self.facts.email_if_known(self.principal).is_none() {
            let _ = timeout(NAME_TIMEOUT, self.facts.email(self.principal)).await;
        }
    }
}

// === impl RequiredRole ===

impl RequiredRole {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TokenCreator => "roles/iam.serviceAccountTokenCreator",
            Self::WorkloadIdentityUser => "roles/iam.workloadIdentityUser",
        }
    }
}

/// Requests a token of the account: `generateAccessToken`, or `generateIdToken` with the account's e-mail address.
pub(super) async fn token(
    client: &EndpointClient,
    account: &TargetAccount,
    caller: IamCaller<'_>,
    kind: &TokenKind,
    priority: &FetchPriority,
    end: Instant,
) -> Result<Token, FetchError> {
    let delegates = account.delegates();
    let (method, body) = match kind {
        TokenKind::Access { scopes } => {
            let all = [Arc::from(CLOUD_PLATFORM)];
            let scopes: &[Arc<str>] = if scopes.is_empty() { &all } else { scopes };
            let scopes: Vec<&str> = scopes.iter().map(|scope| &**scope).collect();
            let lifetime = format!("{}s", account.lifetime.as_secs());
            let body = json!({"delegates": delegates, "scope": scopes, "lifetime": lifetime});
            ("generateAccessToken", body)
        }
        TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
            let audience = &**audience;
            let body = json!({"audience": audience, "delegates": delegates, "includeEmail": true});
            ("generateIdToken", body)
        }
    };
    let call = Call {
        account,
        method,
        what: token_clause(kind),
        body,
        end,
    };
    call.send(client, caller, priority, |body, start| {
        let now = Now::now();
        let token = match kind {
            TokenKind::Access { .. } => parse::iam_access_token(body, account.lifetime, start, now),
            TokenKind::Id { audience } | TokenKind::Jwt { audience } => {
                parse::iam_id_token(body, audience, start, now)
            }
        };
        check_lateness(token, start, now)
    })
    .await
}

/// Requests a signature of claims by the account: `signJwt`. `what` names the result in a message.
pub(super) async fn sign_jwt(
    client: &EndpointClient,
    account: &TargetAccount,
    caller: IamCaller<'_>,
    claims: &Value,
    what: &str,
    priority: &FetchPriority,
    end: Instant,
) -> Result<String, FetchError> {
    let call = Call {
        account,
        method: "signJwt",
        what: what.to_owned(),
        // The API expects the claims as text within the JSON.
        body: json!({"delegates": account.delegates(), "payload": claims.to_string()}),
        end,
    };
    call.send(client, caller, priority, |body, _| {
        Ok(parse::signed_jwt(body)?)
    })
    .await
}

// === impl Call ===

impl Call<'_> {
    async fn send<T: Send>(
        &self,
        client: &EndpointClient,
        caller: IamCaller<'_>,
        priority: &FetchPriority,
        read: impl Fn(&Bytes, Now) -> Result<T, AttemptError> + Sync,
    ) -> Result<T, FetchError> {
        let what = format!("{} (account {})", self.what, printable(&self.account.email));
        let url = format!("{}:{}", self.account.url, self.method);
        let mut headers = bearer(caller.token.reveal()).ok_or_else(|| {
            FetchError::new(
                TokenFault::Malformed,
                "the caller's token is not a valid header value",
            )
        })?;
        if let Some(project) = caller.quota_project {
            headers.insert(USER_PROJECT, project.clone());
        }
        let time = self.end.saturating_duration_since(Instant::now());
        let attempt = || async {
            let start = Now::now();
            let body = self.attempt(client, caller, &url, &headers).await?;
            read(&body, start)
        };
        client
            .fetch_within(time, &what, self.account, priority, attempt, |error| {
                self.hint(error, caller)
            })
            .await
    }

    /// Sends the request once. Returns the body of the response.
    async fn attempt(
        &self,
        client: &EndpointClient,
        caller: IamCaller<'_>,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Bytes, AttemptError> {
        let answer = client.post_json(&url, headers.clone(), &self.body).await;
        let error = match answer {
            Ok(body) => return Ok(body),
            Err(error) => named(error),
        };
        if matches!(error.status.map(|status| status.as_u16()), Some(401 | 403)) {
            caller.learn_name().await;
        }
        Err(error)
    }

    /// Returns advice for a response of the API.
    fn hint(&self, error: &AttemptError, caller: IamCaller<'_>) -> Option<String> {
        let account = &self.account.email;
        match error.status?.as_u16() {
            _ if error.reason.contains("SERVICE_DISABLED") || error.reason.contains("has not been used") => Some(
                "enable the IAM Service Account Credentials API (iamcredentials.googleapis.com) in the project that the answer \
                 names"
                    .to_owned(),
            ),
            401 => {
                let clock = caller.is_self_signed().then(|| error.clock_hint()).flatten();
                let clock = clock.map_or_else(String::new, |hint| format!(", and it was signed here: {hint}"));
                Some(format!("the token of {} was not accepted{clock}", caller.name()))
            }
            403 if error.code.is_none() => Some(
                "the answer is not Google's: does a proxy or firewall refuse the call?".to_owned(),
            ),
            403 => {
                let name = caller.name();
                let hops = self.account.hops(&name, &error.reason);
                // A federated principal's role permits neither signatures nor delegation.
                let role = match caller.role {
                    RequiredRole::WorkloadIdentityUser if self.method == "signJwt" => RequiredRole::TokenCreator,
                    role => role,
                };
                Some(format!("grant {}", grants(&hops, role, self.account.ends())))
            }
            404 => Some(format!("is there a service account {account}, and is its name correct?")),
            _ => None,
        }
    }
}

/// Lists the roles that let each account use the next one.
fn grants(
    hops: &[(&str, &str)],
    first_role: RequiredRole,
    (first, target): (&str, &str),
) -> String {
    let grant = |(caller, account): &(&str, &str)| {
        let role = match *account == first {
            true => first_role,
            false => RequiredRole::TokenCreator,
        };
        let grant = format!("{} on {account} to {caller}", role.as_str());
        match role {
            RequiredRole::WorkloadIdentityUser if first != target => format!(
                "{grant} (with delegates {} too)",
                RequiredRole::TokenCreator.as_str()
            ),
            _ => grant,
        }
    };
    hops.iter().map(grant).collect::<Vec<_>>().join(", and ")
}

/// Maps the fault of a response to its meaning for this API.
fn named(error: AttemptError) -> AttemptError {
    let fault = match error.fault {
        TokenFault::Forbidden | TokenFault::NoAccount => TokenFault::NotImpersonated,
        other => other,
    };
    AttemptError { fault, ..error }
}

#[cfg(test)]
mod tests;
