//! Policy and tokens together: the decision for a destination, and the slot of its token.

mod account_log;
mod service_location;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config::Route;
use crate::destination::{Destination, Host};
use crate::error::Error;
use crate::policy::{
    Credential, CredentialGrant, DEFAULT_UNIVERSE, Decision, Policy, RuleOptions, TokenKey,
    TokenKind,
};
use crate::token::{Facts, Slot, TokenCache};

/// How long a request waits for the universe domain, once, if its host could belong to an unknown universe. The start
/// waits as long for the CA's domains.
pub(crate) const UNIVERSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The policy and the tokens: returns the decision for a destination, with the slot of its token.
#[derive(Debug)]
pub(crate) struct CredentialProvider {
    policy: Policy,
    tokens: TokenCache,
    facts: Facts,
    /// A request for the universe failed: later requests do not wait for it.
    universe_failed: AtomicBool,
    /// The account was logged.
    account_logged: AtomicBool,
}

/// A decision and, if it grants a token, the slot of that token.
#[derive(Clone, Debug)]
pub(crate) struct DecidedCall {
    /// The credential, its form, and the rule that decided.
    pub(crate) decision: Arc<Decision>,
    /// The slot of the token; `None` if the decision grants none.
    pub(crate) slot: Option<Arc<Slot>>,
}

/// The decision for a route, cached once it is the same for every path.
#[derive(Debug, Default)]
pub(crate) struct RouteDecision(OnceLock<DecidedCall>);

// === impl RouteDecision ===

impl RouteDecision {
    /// Returns the cached decision.
    pub(super) fn get(&self) -> Option<&DecidedCall> {
        self.0.get()
    }
}

// === impl CredentialProvider ===

impl CredentialProvider {
    /// Creates a provider with these rules, tokens and instance facts.
    pub(crate) fn new(policy: Policy, tokens: TokenCache, facts: Facts) -> Self {
        Self {
            policy,
            tokens,
            facts,
            universe_failed: AtomicBool::new(false),
            account_logged: AtomicBool::new(false),
        }
    }

    /// Returns a provider with other rules and the same tokens and facts.
    #[must_use]
    pub(crate) fn with_policy(&self, policy: Policy) -> Self {
        Self {
            policy,
            tokens: self.tokens.clone(),
            facts: self.facts.clone(),
            universe_failed: AtomicBool::new(self.universe_failed.load(Ordering::Relaxed)),
            account_logged: AtomicBool::new(self.account_logged.load(Ordering::Relaxed)),
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
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the universe domain; [`DEFAULT_UNIVERSE`] while it is unknown.
    pub(crate) fn universe(&self) -> Arc<str> {
        self.facts
            .universe_if_known()
            .unwrap_or_else(|| DEFAULT_UNIVERSE.into())
    }

    /// Returns the decision for a route; `None` if it depends on each request's path, or on the location of a service
    /// that is not known yet.
    pub(super) fn decide_route(
        &self,
        route: &Route,
        decision: &RouteDecision,
    ) -> Option<DecidedCall> {
        if let Some(decided) = decision.get() {
            return Some(decided.clone());
        }
        let options = &route.options;
        let upstream = match &route.service {
            None => Cow::Borrowed(&route.upstream),
            Some(service) => Cow::Owned(Destination {
                origin: self.known_location(service)?.ok()?,
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
        let decided = self.decide_route_call(route, upstream);
        // A decision for an assumed universe is not cached: it may change once the universe is known.
        if self.facts.universe_if_known().is_some() || !self.policy.needs_universe(upstream) {
            let _ = decision.0.set(decided.clone());
        }
        Some(decided)
    }

    /// Returns the decision for one call to a route's upstream.
    pub(super) fn decide_route_call(
        &self,
        route: &Route,
        destination: &Destination,
    ) -> DecidedCall {
        let decision =
            self.policy
                .decide_route(&route.name, &route.options, destination, &self.universe());
        self.with_slot(decision, true, destination)
    }

    /// Returns the decision for one call through the forward proxy.
    pub(super) fn decide_call(&self, destination: &Destination) -> DecidedCall {
        let decision = self.policy.decide(destination, &self.universe());
        self.with_slot(decision, false, destination)
    }

    /// Returns the decision for a call through the forward proxy. Fetches the universe first if the decision depends on
    /// it.
    ///
    /// # Errors
    ///
    /// The decision depends on the universe, and it cannot be fetched.
    pub(crate) async fn fetch_universe_and_decide_call(
        &self,
        destination: &Destination,
    ) -> Result<DecidedCall, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self.policy.decide(destination, &universe);
        Ok(self.with_slot(decision, false, destination))
    }

    /// Returns the decision for a call to `destination`, the upstream of the route `name` with these options.
    ///
    /// # Errors
    ///
    /// The decision depends on the universe, and it cannot be fetched.
    pub(crate) async fn fetch_universe_and_decide_route(
        &self,
        name: &str,
        options: &RuleOptions,
        destination: &Destination,
    ) -> Result<DecidedCall, Error> {
        let universe = self.universe_for(destination).await?;
        let decision = self
            .policy
            .decide_route(name, options, destination, &universe);
        Ok(self.with_slot(decision, true, destination))
    }

    /// Returns the universe; fetches it if the decision for this destination depends on it.
    async fn universe_for(&self, destination: &Destination) -> Result<Arc<str>, Error> {
        if self.policy.needs_universe(destination) {
            self.facts.universe().await?;
        }
        Ok(self.universe())
    }

    fn with_slot(
        &self,
        decision: Decision,
        by_route: bool,
        destination: &Destination,
    ) -> DecidedCall {
        let slot = match &decision.grant {
            CredentialGrant::Token(key) if by_route || is_given(key, destination) => {
                Some(self.tokens.configured_slot(key))
            }
            CredentialGrant::Token(key) => Some(self.tokens.slot(key)),
            CredentialGrant::None(_) | CredentialGrant::Deny(_) => None,
        };
        DecidedCall {
            decision: Arc::new(decision),
            slot,
        }
    }

    /// Returns whether the decision must wait for the universe: it is unknown, and this host could belong to it.
    ///
    /// Hosts under the default universe do not wait here: the authorize layer sends no token to them before the
    /// universe is confirmed.
    pub(super) fn must_wait_for_universe(&self, destination: &Destination) -> bool {
        self.facts.universe_if_known().is_none()
            && self.policy.needs_universe(destination)
            && !destination.origin.host.is_under(DEFAULT_UNIVERSE)
    }

    /// Waits up to 2 s for the universe, and not again after a failure: unmatched hosts rarely depend on it.
    pub(super) async fn wait_for_universe(&self) {
        if self.universe_failed.load(Ordering::Relaxed) {
            let facts = self.facts.clone();
            tokio::spawn(async move { facts.universe().await });
            return;
        }
        let known = tokio::time::timeout(UNIVERSE_TIMEOUT, self.facts.universe()).await;
        if !matches!(known, Ok(Ok(_))) {
            self.universe_failed.store(true, Ordering::Relaxed);
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
