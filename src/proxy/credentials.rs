//! Policy and tokens together: what a destination gets, and the slot that keeps it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::destination::{Destination, Host, Origin};
use crate::error::{Error, ErrorKind};
use crate::policy::{
    Credential, DEFAULT_UNIVERSE, Decision, Grant, InvalidService, Options, Policy, Principal,
    ServiceName, TokenKey, TokenKind, account_warning,
};
use crate::proxy::ingress::{Ingress, RouteIngress};
use crate::telemetry;
use crate::token::{Facts, Slot, TokenCache};

/// How long a host that only an unknown universe could name is kept waiting, once, at the start.
const UNIVERSE_PATIENCE: Duration = Duration::from_secs(2);

/// Policy and tokens together: from a destination to a decision and its slot.
#[derive(Debug)]
pub struct Decider {
    policy: Policy,
    tokens: TokenCache,
    instance: Facts,
    /// The metadata server was asked for the universe and did not say: nobody waits for it any more.
    given_up: AtomicBool,
    /// The log has named the account.
    named_account: AtomicBool,
}

/// A decision and, where it is a token, the slot that keeps it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the destination gets.
    pub decision: Arc<Decision>,
    /// Where the token is.
    pub slot: Option<Arc<Slot>>,
}

// === impl Decider ===

impl Decider {
    /// One for the process.
    pub fn new(policy: Policy, tokens: TokenCache, instance: Facts) -> Self {
        Self {
            policy,
            tokens,
            instance,
            given_up: AtomicBool::new(false),
            named_account: AtomicBool::new(false),
        }
    }

    /// Other rules over the same tokens and the same facts.
    #[must_use]
    pub fn with_policy(&self, policy: Policy) -> Self {
        Self {
            policy,
            tokens: self.tokens.clone(),
            instance: self.instance.clone(),
            given_up: AtomicBool::new(self.given_up.load(Ordering::Relaxed)),
            named_account: AtomicBool::new(self.named_account.load(Ordering::Relaxed)),
        }
    }

    /// The rules and the table.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every slot.
    pub fn tokens(&self) -> &TokenCache {
        &self.tokens
    }

    /// Facts from the metadata server.
    pub fn instance(&self) -> &Facts {
        &self.instance
    }

    /// The universe as far as it is known; Google's own until then.
    pub fn universe(&self) -> Arc<str> {
        self.instance
            .universe_if_known()
            .unwrap_or_else(|| DEFAULT_UNIVERSE.into())
    }

    /// Asks the metadata server for what is not known of the instance yet: the universe, and account and project for the log,
    /// which names the account once.
    ///
    /// # Errors
    ///
    /// As for a token.
    pub async fn learn(&self) -> Result<(), Error> {
        // The account is for the log only: the rest does not depend on it.
        let email = async { Ok::<_, Error>(self.instance.email(&Principal::Attached).await.ok()) };
        let (_, email) = tokio::try_join!(self.instance.universe(), email)?;
        let project = self.instance.project_id().await?;
        telemetry::set_project(&project);
        let Some(email) = email else {
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
                    "tokens are those of {other}; the attached account is {email} of the project {project}",
                ),
            }
            if let Some(warning) = account_warning(&email) {
                tracing::warn!(account = &*email, "{warning}");
            }
        }
        Ok(())
    }

    /// Where a destination is that may be named by a service's name.
    ///
    /// # Errors
    ///
    /// No service can have that name, or the metadata server did not say where it is.
    pub async fn discover(&self, destination: Destination) -> Result<Destination, Error> {
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

    /// Where a service is, asking for the project's number and the region where they are not known yet.
    ///
    /// # Errors
    ///
    /// As for a token; or the name is too long for the number.
    pub async fn locate(&self, service: &ServiceName) -> Result<Origin, Error> {
        if let Some(located) = self.located(service) {
            return located;
        }
        self.instance.project_number().await?;
        if service.region().is_none() {
            self.instance.region().await?;
        }
        service
            .at(&self.instance.home_if_known())
            .map_err(|error| invalid(&error))
    }

    /// The same, where nothing needs to be asked.
    pub fn located(&self, service: &ServiceName) -> Option<Result<Origin, Error>> {
        let home = self.instance.home_if_known();
        let known =
            home.project_number.is_some() && (home.region.is_some() || service.region().is_some());
        known.then(|| service.at(&home).map_err(|error| invalid(&error)))
    }

    /// Asks where the upstreams are of which routes know no more than a service's name.
    pub async fn locate_routes(&self, routes: &[Arc<Ingress>]) {
        for service in routes.iter().filter_map(|ingress| ingress.service()) {
            if let Err(error) = self.locate(service).await {
                tracing::warn!("run://{service}: {error}");
            }
        }
    }

    /// Takes a route's decision; `None` where it depends on each request's path, or on what is not known yet: where the
    /// service is.
    pub fn resolve_route(&self, route: &RouteIngress) -> Option<Resolved> {
        if let Some(resolved) = route.resolved.get() {
            return Some(resolved.clone());
        }
        let options = &route.route.options;
        let upstream = match &route.route.service {
            None => Cow::Borrowed(&route.route.upstream),
            Some(service) => Cow::Owned(Destination {
                origin: self.located(service)?.ok()?,
                ..route.route.upstream.clone()
            }),
        };
        let upstream = &*upstream;
        let universe = self.universe();
        let said = match options.credential {
            None => false,
            Some(Credential::Id) => options.audience.is_some(),
            Some(_) => true,
        };
        if !said && self.policy.depends_on_path(&upstream.origin, &universe) {
            return None;
        }
        let name = &route.route.name;
        let decision = self.policy.decide_route(name, options, upstream, &universe);
        let resolved = self.resolved(decision, true, upstream);
        // A guess is not kept: it is made again until the universe is known.
        if self.instance.universe_if_known().is_some() || !self.policy.needs_universe(upstream) {
            let _ = route.resolved.set(resolved.clone());
        }
        Some(resolved)
    }

    /// What a call through the forward proxy gets, asking for the universe first where that could matter.
    ///
    /// # Errors
    ///
    /// The universe could matter and is not to be had.
    pub async fn resolve_surely(&self, destination: &Destination) -> Result<Resolved, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self.policy.decide(destination, &universe);
        Ok(self.resolved(decision, false, destination))
    }

    /// The same for a call to `destination`, the upstream of the route `name` with these options.
    ///
    /// # Errors
    ///
    /// The universe could matter and is not to be had.
    pub async fn resolve_route_surely(
        &self,
        name: &str,
        options: &Options,
        destination: &Destination,
    ) -> Result<Resolved, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self
            .policy
            .decide_route(name, options, destination, &universe);
        Ok(self.resolved(decision, true, destination))
    }

    /// The universe, asked for where it could matter to this destination.
    async fn universe_for(&self, destination: &Destination) -> Result<Arc<str>, Error> {
        if self.policy.needs_universe(destination) {
            self.instance.universe().await?;
        }
        Ok(self.universe())
    }

    pub(super) fn resolve(&self, ingress: &Ingress, destination: &Destination) -> Resolved {
        let universe = self.universe();
        let decision = match ingress.route() {
            Some(route) => match self.resolve_route(route) {
                Some(resolved) => return resolved,
                None => self.policy.decide_route(
                    &route.route.name,
                    &route.route.options,
                    destination,
                    &universe,
                ),
            },
            None => self.policy.decide(destination, &universe),
        };
        self.resolved(decision, ingress.route().is_some(), destination)
    }

    fn resolved(&self, decision: Decision, by_route: bool, destination: &Destination) -> Resolved {
        let slot = match &decision.grant {
            Grant::Token(key) if by_route || is_given(key, destination) => {
                Some(self.tokens.configured_slot(key))
            }
            Grant::Token(key) => Some(self.tokens.slot(key)),
            Grant::None(_) | Grant::Deny(_) => None,
        };
        Resolved {
            decision: Arc::new(decision),
            slot,
        }
    }

    /// Whether the decision would be a guess: the universe is not known yet, and could name this host.
    ///
    /// Hosts under Google's own domain need not wait here: no token leaves for them before the universe is sure.
    pub(super) fn must_wait(&self, destination: &Destination) -> bool {
        self.instance.universe_if_known().is_none()
            && self.policy.needs_universe(destination)
            && !destination.origin.host.is_under(DEFAULT_UNIVERSE)
    }

    /// Waits for the universe, but not for long and not again after a failure: a host that only an unknown universe could
    /// name most likely has nothing to do with it.
    pub(super) async fn learn_universe(&self) {
        if self.given_up.load(Ordering::Relaxed) {
            let instance = self.instance.clone();
            tokio::spawn(async move { instance.universe().await });
            return;
        }
        let asked = tokio::time::timeout(UNIVERSE_PATIENCE, self.instance.universe()).await;
        if !matches!(asked, Ok(Ok(_))) {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }
}

/// The audience is one that the configuration gives: one that was derived from the destination contains its host.
fn is_given(key: &TokenKey, destination: &Destination) -> bool {
    match (&key.kind, &destination.origin.host) {
        (TokenKind::Id { audience }, Host::Name(name)) => !audience.contains(&**name),
        _ => false,
    }
}

/// An app that writes such a name gets to hear it as one.
fn invalid(error: &InvalidService) -> Error {
    Error::new(ErrorKind::BadRequest, error.to_string())
}
