//! Controls a running sidecar.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::generation::{Generation, Process};
use super::sockets::BoundAddrs;
use super::{policy, provider, reload};
use crate::admin::{Admin, Lifecycle};
use crate::config::Config;
use crate::destination::Host;
use crate::diagnostics::startup::ConfigSummary;
use crate::lock::lock;
use crate::proxy::{CredentialProvider, InFlight, Ingress, locate_routes};
use crate::server::{IdleTimeout, SharedListenerState};
use crate::telemetry;
use crate::token::Slot;
use crate::upstream::BadRoots;

/// Reloads and inspects a sidecar. Clones control the same one.
#[derive(Clone, Debug)]
pub struct Control(Arc<Running>);

#[derive(Debug)]
struct Running {
    process: Process,
    generation: Mutex<Generation>,
    /// The state of each listener, in the order of [`Generation::listener_states`].
    listener_states: Vec<SharedListenerState>,
    admin: Arc<ArcSwap<Admin>>,
    idle: IdleTimeout,
}

// === impl Control ===

impl Control {
    pub(super) fn new(
        process: Process,
        generation: Generation,
        listener_states: Vec<SharedListenerState>,
        admin: Arc<ArcSwap<Admin>>,
        idle: IdleTimeout,
    ) -> Self {
        Self(Arc::new(Running {
            process,
            generation: Mutex::new(generation),
            listener_states,
            admin,
            idle,
        }))
    }

    /// Applies another configuration to later requests. Requests in flight keep theirs. Listeners, counters and open
    /// connections are kept, and so are tokens, unless the credential has changed.
    ///
    /// Returns the changes that need a restart. They are not applied.
    ///
    /// # Errors
    ///
    /// The trust roots are unusable. Nothing has changed then.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn reload(&self, config: Config) -> Result<Vec<String>, BadRoots> {
        let process = &self.0.process;
        let mut generation = self.generation();
        let (config, mut waiting) = reload::merge_reload(&generation.configured, config);
        let upstream = if reload::same_upstreams(&generation.configured, &config) {
            generation.upstream.clone()
        } else {
            process.upstream(&config)?
        };
        let provider = if reload::same_sources(&generation.configured, &config) {
            generation.provider.with_policy(policy(&config))
        } else {
            // The cached tokens belong to the old credential.
            provider(&config, process.metrics.clone(), &process.logins)?
        };
        let provider = Arc::new(provider);
        process.shared.memory.set_limit(config.max_memory);
        self.0.idle.set(config.upstream.idle_timeout);
        waiting.extend(self.not_covered(&provider));
        let next = Generation::new(process, config, provider, upstream);
        for (state, next_state) in self.0.listener_states.iter().zip(&next.listener_states) {
            state.store(Arc::new(next_state.clone()));
        }
        self.0.admin.store(Arc::new(next.admin.clone()));
        telemetry::adjust(&next.configured.log);
        let before = std::mem::replace(&mut *generation, next);
        drop(generation);
        for slot in slots(&before.provider, &before.routes) {
            slot.release();
        }
        self.prefetch();
        Ok(waiting)
    }

    /// Called when the process continues after a stop. Closes idle connections, which the peer may have closed, and
    /// refreshes expired tokens.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn resumed(&self) {
        let generation = self.generation();
        generation.upstream.close_idle();
        let _runs_in_background = generation.provider.tokens().refresh_stale();
    }

    /// Completes when the drain begins.
    pub async fn drain_begun(&self) {
        self.0.process.lifecycle.drain_begun().await;
    }

    /// Returns whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.process.lifecycle.is_draining()
    }

    /// Returns the summary of the configuration for the log.
    pub(crate) fn summary(&self) -> ConfigSummary {
        self.generation().summary()
    }

    /// Returns whether `--intercept` is on.
    pub fn intercepts(&self) -> bool {
        self.0.process.interception.is_some()
    }

    /// Returns advice if no request has come in.
    pub(super) fn unused(&self) -> Option<String> {
        self.generation().admin.unused()
    }

    /// Starts to fetch what the first requests need. Only readiness depends on it.
    pub(super) fn prefetch(&self) {
        let generation = self.generation();
        let (provider, routes) = (generation.provider.clone(), generation.routes.clone());
        drop(generation);
        tokio::spawn(async move {
            // If the universe turns out to be another one, a token fetched before is not used.
            fetch_tokens(&provider, &routes);
            // The failure is logged. Requests and probes retry.
            let _ = provider.fetch_facts().await;
            locate_routes(&provider, &routes).await;
            fetch_tokens(&provider, &routes);
        });
    }

    pub(super) fn bound(&self) -> &BoundAddrs {
        &self.0.process.bound
    }

    pub(super) fn in_flight(&self) -> &Arc<InFlight> {
        &self.0.process.in_flight
    }

    pub(super) fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.0.process.lifecycle
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.generation().configured.drain_timeout
    }

    /// Returns a note for each domain that the CA, which was created at start, does not cover.
    fn not_covered(&self, provider: &CredentialProvider) -> Vec<String> {
        let Some(interception) = &self.0.process.interception else {
            return Vec::new();
        };
        let domains = provider.policy().granted_domains(&provider.universe());
        let strange = domains.into_iter().filter(|domain| {
            Host::parse(domain).is_ok_and(|host| !interception.interceptor.covers(&host))
        });
        strange
            .map(|domain| {
                format!(
                    "--intercept for {domain} takes effect after a restart, because the CA was created at the start; \
                     until then a CONNECT tunnel to it carries no token"
                )
            })
            .collect()
    }

    fn generation(&self) -> MutexGuard<'_, Generation> {
        lock(&self.0.generation)
    }
}

fn fetch_tokens(provider: &CredentialProvider, routes: &[Arc<Ingress>]) {
    for slot in slots(provider, routes) {
        slot.prefetch();
    }
}

/// Returns the slots of routes whose token does not depend on the request.
fn slots<'a>(
    provider: &'a CredentialProvider,
    routes: &'a [Arc<Ingress>],
) -> impl Iterator<Item = Arc<Slot>> + 'a {
    routes
        .iter()
        .filter_map(|ingress| ingress.route()?.decide(provider)?.slot)
}
