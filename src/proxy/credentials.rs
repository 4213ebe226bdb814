//! Policy and tokens together: the decision for a destination, and the slot of its token.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config::Route;
use crate::destination::{Destination, Host, Origin};
use crate::diagnostics::LogEntry;
use crate::error::{Error, ErrorKind};
use crate::explain::account_warning;
use crate::policy::{
    Credential, CredentialGrant, DEFAULT_UNIVERSE, Decision, InvalidService, Policy, Principal,
    RuleOptions, ServiceName, TokenKey, TokenKind,
};
use crate::telemetry;
use crate::token::{Facts, Slot, TokenCache};

/// How long a request waits for the universe domain, once, if its host could belong to an unknown universe.
const UNIVERSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Resolves a destination to a decision and the slot of its token.
#[derive(Debug)]
pub(crate) struct CredentialProvider {
    policy: Policy,
    tokens: TokenCache,
    instance: Facts,
    /// A request for the universe failed: later requests do not wait for it.
    given_up: AtomicBool,
    /// The account was logged.
    named_account: AtomicBool,
}

/// A decision and, if it grants a token, the slot of that token.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The credential, its form, and the rule that decided.
    pub(crate) decision: Arc<Decision>,
    /// The slot of the token; `None` if the decision grants none.
    pub(crate) slot: Option<Arc<Slot>>,
}

/// The decision for a route, cached once it is the same for every path.
#[derive(Debug, Default)]
pub(crate) struct RouteDecision(OnceLock<Resolved>);

// === impl RouteDecision ===

impl RouteDecision {
    /// Returns the cached decision.
    pub(super) fn get(&self) -> Option<&Resolved> {
        self.0.get()
    }
}

// === impl CredentialProvider ===

impl CredentialProvider {
    /// Creates a resolver with these rules, tokens and instance facts.
    pub(crate) fn new(policy: Policy, tokens: TokenCache, instance: Facts) -> Self {
        Self {
            policy,
            tokens,
            instance,
            given_up: AtomicBool::new(false),
            named_account: AtomicBool::new(false),
        }
    }

    /// Returns a resolver with other rules and the same tokens and facts.
    #[must_use]
    pub(crate) fn with_policy(&self, policy: Policy) -> Self {
        Self {
            policy,
            tokens: self.tokens.clone(),
            instance: self.instance.clone(),
            given_up: AtomicBool::new(self.given_up.load(Ordering::Relaxed)),
            named_account: AtomicBool::new(self.named_account.load(Ordering::Relaxed)),
        }
    }

    /// Returns the rules and the built-in table.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the cache of all token slots.
    pub(crate) fn tokens(&self) -> &TokenCache {
        &self.tokens
    }

    /// Returns project, region, universe and account.
    pub(crate) fn instance(&self) -> &Facts {
        &self.instance
    }

    /// Returns the universe domain; [`DEFAULT_UNIVERSE`] while it is unknown.
    pub(crate) fn universe(&self) -> Arc<str> {
        self.instance
            .universe_if_known()
            .unwrap_or_else(|| DEFAULT_UNIVERSE.into())
    }

    /// Fetches the facts that are not known yet: the universe, and the account and project for the log. Logs the
    /// account once.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub(crate) async fn learn(&self) -> Result<(), Error> {
        // The account is for the log only, so an error is ignored.
        let email = async { Ok::<_, Error>(self.instance.email(&Principal::Attached).await.ok()) };
        let (_, email) = tokio::try_join!(self.instance.universe(), email)?;
        let project = match self.instance.project_id().await {
            Ok(project) => project,
            // Some credential files do not name the account.
            Err(_) if self.policy.credential_name().is_file() => return Ok(()),
            Err(error) => return Err(error),
        };
        telemetry::set_project(&project);
        // The start has already logged a credential file.
        let Some(email) = email.filter(|_| !self.policy.credential_name().is_file()) else {
            return Ok(());
        };
        if !self.named_account.swap(true, Ordering::Relaxed) {
            match self.policy.default_principal() {
                Principal::Attached => tracing::info!(
                    account = &*email,
                    source = "metadata",
                    "tokens are those of {email} from the metadata server of the project {project}",
                ),
                other => tracing::info!(
                    account = other.account(),
                    source = "impersonation",
                    "tokens are those of {}; the base credential is {email} from the metadata server of the project {project}",
                    other.name_of(&email),
                ),
            }
            if let Some(warning) = account_warning(&email) {
                let help = LogEntry::ComputeDefaultAccount.page();
                tracing::warn!(account = &*email, help, "{warning}");
            }
        }
        Ok(())
    }

    /// Resolves a destination whose host may be a service name.
    ///
    /// # Errors
    ///
    /// The name is not a valid service name, or the location of the service cannot be determined.
    pub(crate) async fn discover(&self, destination: Destination) -> Result<Destination, Error> {
        let origin = match self.policy.service(&destination) {
            None => return Ok(destination),
            Some(service) => {
                self.locate(&service.map_err(|error| invalid(&error))?)
                    .await?
            }
        };
        Ok(Destination {
            origin,
            ..destination
        })
    }

    /// Returns the origin of a service. Fetches the project number and region if they are not known yet.
    ///
    /// # Errors
    ///
    /// Fails if a fact cannot be fetched, or if the name and the project number are too long for one label.
    pub(crate) async fn locate(&self, service: &ServiceName) -> Result<Origin, Error> {
        if let Some(located) = self.located(service) {
            return located;
        }
        self.instance.project_number().await?;
        if service.region().is_none() {
            self.instance.region().await?;
        }
        service
            .at(&self.instance.location_if_known())
            .map_err(|error| invalid(&error))
    }

    /// Returns the origin of a service, if nothing must be fetched for it.
    pub(crate) fn located(&self, service: &ServiceName) -> Option<Result<Origin, Error>> {
        let home = self.instance.location_if_known();
        let known =
            home.project_number.is_some() && (home.region.is_some() || service.region().is_some());
        known.then(|| service.at(&home).map_err(|error| invalid(&error)))
    }

    /// Returns the decision for a route; `None` if it depends on each request's path, or on the location of a service
    /// that is not known yet.
    pub(super) fn resolve_route(
        &self,
        route: &Route,
        decision: &RouteDecision,
    ) -> Option<Resolved> {
        if let Some(resolved) = decision.get() {
            return Some(resolved.clone());
        }
        let options = &route.options;
        let upstream = match &route.service {
            None => Cow::Borrowed(&route.upstream),
            Some(service) => Cow::Owned(Destination {
                origin: self.located(service)?.ok()?,
                ..route.upstream.clone()
            }),
        };
        let upstream = &*upstream;
        let universe = self.universe();
        let is_explicit = match options.credential {
            None => false,
            Some(Credential::Id) => options.audience.is_some(),
            Some(_) => true,
        };
        if !is_explicit && self.policy.depends_on_path(&upstream.origin, &universe) {
            return None;
        }
        let resolved = self.resolve_route_call(route, upstream);
        // A decision for an assumed universe is not cached: it may change once the universe is known.
        if self.instance.universe_if_known().is_some() || !self.policy.needs_universe(upstream) {
            let _ = decision.0.set(resolved.clone());
        }
        Some(resolved)
    }

    /// Returns the decision for one call to a route's upstream.
    pub(super) fn resolve_route_call(&self, route: &Route, destination: &Destination) -> Resolved {
        let decision =
            self.policy
                .decide_route(&route.name, &route.options, destination, &self.universe());
        self.resolved(decision, true, destination)
    }

    /// Returns the decision for one call through the forward proxy.
    pub(super) fn resolve_call(&self, destination: &Destination) -> Resolved {
        let decision = self.policy.decide(destination, &self.universe());
        self.resolved(decision, false, destination)
    }

    /// Returns the decision for a call through the forward proxy. Fetches the universe first if the decision depends on
    /// it.
    ///
    /// # Errors
    ///
    /// The decision depends on the universe, and it cannot be fetched.
    pub(crate) async fn resolve_surely(
        &self,
        destination: &Destination,
    ) -> Result<Resolved, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self.policy.decide(destination, &universe);
        Ok(self.resolved(decision, false, destination))
    }

    /// Returns the decision for a call to `destination`, the upstream of the route `name` with these options.
    ///
    /// # Errors
    ///
    /// The decision depends on the universe, and it cannot be fetched.
    pub(crate) async fn resolve_route_surely(
        &self,
        name: &str,
        options: &RuleOptions,
        destination: &Destination,
    ) -> Result<Resolved, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self
            .policy
            .decide_route(name, options, destination, &universe);
        Ok(self.resolved(decision, true, destination))
    }

    /// Returns the universe; fetches it if the decision for this destination depends on it.
    async fn universe_for(&self, destination: &Destination) -> Result<Arc<str>, Error> {
        if self.policy.needs_universe(destination) {
            self.instance.universe().await?;
        }
        Ok(self.universe())
    }

    fn resolved(&self, decision: Decision, by_route: bool, destination: &Destination) -> Resolved {
        let slot = match &decision.grant {
            CredentialGrant::Token(key) if by_route || is_given(key, destination) => {
                Some(self.tokens.configured_slot(key))
            }
            CredentialGrant::Token(key) => Some(self.tokens.slot(key)),
            CredentialGrant::None(_) | CredentialGrant::Deny(_) => None,
        };
        Resolved {
            decision: Arc::new(decision),
            slot,
        }
    }

    /// Returns whether the decision must wait for the universe: it is unknown, and this host could belong to it.
    ///
    /// Hosts under the default universe do not wait here: the authorize layer sends no token to them before the
    /// universe is confirmed.
    pub(super) fn must_wait(&self, destination: &Destination) -> bool {
        self.instance.universe_if_known().is_none()
            && self.policy.needs_universe(destination)
            && !destination.origin.host.is_under(DEFAULT_UNIVERSE)
    }

    /// Waits up to 2 s for the universe, and not again after a failure: unmatched hosts rarely depend on it.
    pub(super) async fn learn_universe(&self) {
        if self.given_up.load(Ordering::Relaxed) {
            let instance = self.instance.clone();
            tokio::spawn(async move { instance.universe().await });
            return;
        }
        let asked = tokio::time::timeout(UNIVERSE_TIMEOUT, self.instance.universe()).await;
        if !matches!(asked, Ok(Ok(_))) {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns whether the audience comes from the configuration. An audience derived from the destination contains its
/// host.
fn is_given(key: &TokenKey, destination: &Destination) -> bool {
    match (&key.kind, &destination.origin.host) {
        (TokenKind::Id { audience }, Host::Name(name)) => !audience.contains(&**name),
        _ => false,
    }
}

/// The app wrote the name, so the error is a bad request.
fn invalid(error: &InvalidService) -> Error {
    Error::new(ErrorKind::BadRequest, error.to_string())
}
