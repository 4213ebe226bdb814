//! Tokens of service accounts that another identity impersonates with the IAM Credentials API.
//!
//! The identity's own token comes from its slot. It is cached, fetched once for all callers, and refreshed like any
//! other token.

mod caller_token;
mod file_target;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, timeout_at};

use self::caller_token::CallerToken;
pub(super) use self::file_target::FileTarget;
use super::context::SourceContext;
use super::endpoint::EndpointClient;
use super::iam::{self, CLOUD_PLATFORM, RequiredRole, TargetAccount};
use super::quota_project::QuotaProjects;
use super::transport::OpenTransport;
use super::{FetchFuture, TokenSource};
use crate::config::UpstreamConfig;
use crate::credentials::CredentialFile;
use crate::error::{Error, SourceKind, TokenFault};
use crate::policy::{Impersonation, Principal, TokenKey, TokenKind, project_of, without_own};
use crate::telemetry::Metrics;
use crate::token::fact::Fact;
use crate::token::facts::Facts;
use crate::token::fetch_error::FetchError;
use crate::token::priority::FetchPriority;
use crate::token::value::Token;

/// The additional time to wait for the base credential's result beyond its own limit. The base fails at the same time,
/// and its error names the slow endpoint.
const BASE_GRACE: Duration = Duration::from_millis(500);

/// Issues the tokens of impersonated accounts.
#[derive(Clone, Debug)]
pub(super) struct ImpersonationSource(pub(super) Arc<Impersonator>);

/// Calls the IAM Credentials API with the tokens of other principals.
pub(super) struct Impersonator {
    context: SourceContext,
    open: OpenTransport,
    upstream: UpstreamConfig,
    timeout: Duration,
    /// The time that the base credential may take in addition.
    base_time: Duration,
    metrics: Arc<Metrics>,
    /// The target of the base credential, if it is a file that impersonates an account.
    file: Option<FileTarget>,
    /// The name of the credential file's holder, or of the source credential, if it has no e-mail address.
    holder: Option<Arc<str>>,
    /// Whether the base credential is a federated principal.
    is_federated: bool,
    /// The projects that pay for calls with the tokens of a credential file.
    quota: QuotaProjects,
    /// The account of every token (`--impersonate-service-account`).
    global: Option<Arc<str>>,
    /// The base credential's name, if it is not a service account and cannot sign.
    unsigned: Option<String>,
    /// Created at its first use, because most sidecars impersonate no account.
    client: OnceLock<EndpointClient>,
}

/// An account, and the principal whose token authorizes calls for it.
#[derive(Debug)]
pub(super) struct AuthorizedAccount {
    pub(super) account: TargetAccount,
    /// The universe of the account.
    pub(super) universe: Arc<str>,
    base: Principal,
    role: RequiredRole,
}

// === impl Impersonator ===

impl Impersonator {
    /// Creates the client. `timeout` limits one fetch with everything that it needs (`--token-timeout`).
    pub(super) fn new(
        context: SourceContext,
        open: OpenTransport,
        upstream: UpstreamConfig,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            context,
            open,
            upstream,
            timeout,
            base_time: Duration::ZERO,
            metrics,
            file: None,
            holder: None,
            is_federated: false,
            quota: QuotaProjects::default(),
            global: None,
            unsigned: None,
            client: OnceLock::new(),
        }
    }

    /// Sets the longest time of one fetch of the base credential.
    #[must_use]
    pub(super) fn over_base(self, time_limit: Duration) -> Self {
        Self {
            base_time: time_limit.saturating_sub(self.timeout),
            ..self
        }
    }

    /// Sets the target of a base credential that impersonates an account itself.
    #[must_use]
    pub(super) fn with_file(self, file: Option<FileTarget>) -> Self {
        Self { file, ..self }
    }

    /// Sets the name of a base credential that is not a service account.
    #[must_use]
    pub(super) fn without_account(self, name: Option<String>) -> Self {
        Self {
            unsigned: name,
            ..self
        }
    }

    /// Sets the account of every token, whose project is that of a base credential without one.
    #[must_use]
    pub(super) fn with_global(self, impersonation: Option<&Impersonation>) -> Self {
        Self {
            global: impersonation.map(|chain| chain.target().into()),
            ..self
        }
    }

    /// Sets the facts of a base credential from its file. `quota_project` is that of access tokens.
    #[must_use]
    pub(super) fn of_file(
        self,
        file: Option<&CredentialFile>,
        quota_project: Option<&HeaderValue>,
    ) -> Self {
        let Some(file) = file else {
            return self;
        };
        Self {
            holder: Some(file.source_holder().unwrap_or_else(|| file.holder()).into()),
            is_federated: file.is_federated() && !file.is_of_account(),
            quota: QuotaProjects::of(file, quota_project),
            ..self
        }
    }

    /// Returns the maximum time of one fetch, including the base's.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout + self.base_time
    }

    pub(super) fn facts(&self) -> Result<Facts, FetchError> {
        self.context.facts()
    }

    pub(super) fn client(&self) -> Result<&EndpointClient, FetchError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let metrics = Arc::clone(&self.metrics);
        let made = EndpointClient::new(self.open, &self.upstream, self.timeout, metrics);
        let made = made.map_err(|error| {
            FetchError::new(
                TokenFault::Unreachable,
                &format!("the IAM Credentials API: {error}"),
            )
        })?;
        Ok(self.client.get_or_init(|| made))
    }

    /// Returns the account that signs for a principal. A principal that is not impersonated signs for itself.
    pub(super) async fn signer(
        &self,
        principal: &Principal,
        end: Instant,
    ) -> Result<AuthorizedAccount, FetchError> {
        let found = timeout_at(end + BASE_GRACE, self.find_signer(principal)).await;
        found.unwrap_or_else(|_| {
            Err(self.late(&format!("{principal}: its universe or its e-mail address")))
        })
    }

    async fn find_signer(&self, principal: &Principal) -> Result<AuthorizedAccount, FetchError> {
        if let Some(file) = &self.file
            && (*principal == Principal::Attached || file.is_for(principal))
        {
            return Ok(AuthorizedAccount {
                account: file.account.clone(),
                universe: Arc::clone(&file.universe),
                base: Principal::Source,
                role: file.role,
            });
        }
        if let (Principal::Attached, Some(name)) = (principal, &self.unsigned) {
            return Err(FetchError::new(
                TokenFault::Unsupported,
                &format!(
                    "{name} is not a service account, so it cannot sign: add impersonate=ACCOUNT"
                ),
            ));
        }
        let facts = self.facts()?;
        let known = |error: Error| FetchError::of(&error);
        let none: Arc<[Arc<str>]> = [].into();
        let (email, delegates, base, universe) = match principal {
            Principal::Impersonated(impersonated) => {
                let chain = &impersonated.chain;
                let base = &impersonated.base;
                let (delegates, universe) = tokio::join!(
                    foreign_delegates(&facts, base, chain.shared_delegates()),
                    facts.universe(),
                );
                let universe = universe.map_err(known)?;
                (chain.target().into(), delegates, base, universe)
            }
            own => {
                // At once, so that both end in time.
                let asked = tokio::try_join!(facts.email(own), facts.universe());
                let (email, universe) = asked.map_err(known)?;
                (email, none, own, universe)
            }
        };
        let of_federated = self.is_federated && *base == Principal::Attached;
        Ok(AuthorizedAccount {
            account: TargetAccount::of_universe(&universe, &email, &delegates),
            universe,
            base: base.clone(),
            role: match of_federated {
                true => RequiredRole::WorkloadIdentityUser,
                false => RequiredRole::TokenCreator,
            },
        })
    }

    /// Like [`signer`](Self::signer), for signatures. A federated principal's role does not permit them, so the account
    /// of its file signs for itself.
    pub(super) async fn signer_of_itself(
        &self,
        principal: &Principal,
        end: Instant,
    ) -> Result<AuthorizedAccount, FetchError> {
        let signer = self.signer(principal, end).await?;
        Ok(match signer.role {
            RequiredRole::WorkloadIdentityUser if signer.base == Principal::Source => {
                AuthorizedAccount {
                    account: signer.account.without_delegates(),
                    base: Principal::Attached,
                    role: RequiredRole::TokenCreator,
                    ..signer
                }
            }
            _ => signer,
        })
    }

    /// Returns the token that authorizes calls for the account: that of the base.
    pub(super) async fn caller_token(
        &self,
        signer: &AuthorizedAccount,
        end: Instant,
    ) -> Result<CallerToken, FetchError> {
        let slot = self.context.access_token(&signer.base, CLOUD_PLATFORM)?;
        let email = signer.account.email();
        let fetched = timeout_at(end + BASE_GRACE, slot.token_for_source()).await;
        let is_late = Instant::now() >= end;
        let Some(token) = fetched.ok().filter(|token| token.is_err() || !is_late) else {
            let base = self.name(&signer.base);
            return Err(self.late(&format!("{email} needs a token of {base}")));
        };
        let token = token.map_err(|error| {
            let base = self.name(&signer.base);
            error.prefixed(&format!("{email} needs a token of {base}"))
        })?;
        Ok(CallerToken {
            holder: self.holder.clone().filter(|_| self.is_holder(&signer.base)),
            facts: self.facts()?,
            base: signer.base.clone(),
            role: signer.role,
            quota_project: self.quota.of_principal(&signer.base).cloned(),
            slot,
            token,
            end,
            renewed: false,
        })
    }

    /// Creates the error for a step that took the whole time of a fetch.
    fn late(&self, what: &str) -> FetchError {
        let limit = self.timeout().as_secs_f32();
        FetchError::new(
            TokenFault::TimedOut,
            &format!("{what}: fetching it took the whole {limit:.1} s"),
        )
    }

    /// Names a principal in a message, by its e-mail address if it is known.
    fn name(&self, principal: &Principal) -> String {
        let holder = self.holder.as_ref().filter(|_| self.is_holder(principal));
        let facts = self.facts().ok();
        let email = facts.and_then(|facts| facts.email_if_known(principal));
        match email.as_ref().or(holder) {
            Some(name) => name.to_string(),
            None => principal.to_string(),
        }
    }

    /// Returns whether `holder` is the name of this principal.
    fn is_holder(&self, principal: &Principal) -> bool {
        match self.file {
            Some(_) => *principal == Principal::Source,
            None => *principal == Principal::Attached,
        }
    }

    async fn token(&self, key: &TokenKey, priority: &FetchPriority) -> Result<Token, FetchError> {
        let end = Instant::now() + self.timeout();
        let client = self.client()?;
        let signer = self.signer(&key.principal, end).await?;
        let kind = match (&key.kind, &self.file) {
            (TokenKind::Access { scopes }, Some(file))
                if scopes.is_empty() && key.principal == Principal::Attached =>
            {
                TokenKind::Access {
                    scopes: Arc::clone(&file.scopes),
                }
            }
            (kind, _) => kind.clone(),
        };
        let mut caller_token = self.caller_token(&signer, end).await?;
        loop {
            let caller = caller_token.caller();
            let issued = iam::token(client, &signer.account, caller, &kind, priority, end).await;
            match issued {
                Err(error) if caller_token.renew(&error).await => {}
                result => return result,
            }
        }
    }
}

/// Returns the delegates without the base's own account at their head: it has a token, and needs no role on itself.
async fn foreign_delegates(
    facts: &Facts,
    base: &Principal,
    delegates: &Arc<[Arc<str>]>,
) -> Arc<[Arc<str>]> {
    if delegates.is_empty() {
        return Arc::clone(delegates);
    }
    let own = match base.account() {
        Some(account) => Some(Arc::from(account)),
        // A person and a federated principal have no account.
        None => facts.email(base).await.ok(),
    };
    without_own(delegates, own.as_deref()).cloned().collect()
}

impl fmt::Debug for Impersonator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Impersonator").finish_non_exhaustive()
    }
}

// === impl ImpersonationSource ===

impl TokenSource for ImpersonationSource {
    fn describe(&self) -> &'static str {
        "the IAM Credentials API"
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Impersonation
    }

    fn serves(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Attached => self.0.file.is_some(),
            principal => matches!(principal, Principal::Impersonated(_)),
        }
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        Box::pin(self.0.token(key, priority))
    }

    fn time_limit(&self) -> Duration {
        self.0.timeout()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let file = self.0.file.as_ref();
        let known = match fact {
            Fact::Email(Principal::Attached) => file.map(|file| file.account.email().to_owned()),
            Fact::Email(principal) => principal.account().map(str::to_owned),
            Fact::Universe => file.map(|file| file.universe.to_string()),
            Fact::ProjectId => file
                .map(|file| file.account.email())
                .or(self.0.global.as_deref())
                .and_then(project_of)
                .map(str::to_owned),
            Fact::ProjectNumber | Fact::Region | Fact::Scopes(_) => None,
        };
        Box::pin(std::future::ready(Ok(known)))
    }
}
