//! What can be done to a sidecar that runs.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::generation::{Generation, Process, RouteSummary};
use super::sockets::BoundAddrs;
use super::{decider, policy, reload};
use crate::admin::{Admin, Lifecycle};
use crate::config::Config;
use crate::credentials::FoundBy;
use crate::destination::Host;
use crate::lock::lock;
use crate::policy::CredentialName;
use crate::proxy::{Decider, InFlight, Ingress, locate_routes};
use crate::server::{IdleTimeout, Serving};
use crate::telemetry;
use crate::token::Slot;
use crate::upstream::BadRoots;

/// Reloads a sidecar, wakes it, and tells how it stands; clones are the same one.
#[derive(Clone, Debug)]
pub struct Control(Arc<Running>);

#[derive(Debug)]
struct Running {
    process: Process,
    generation: Mutex<Generation>,
    /// As [`Generation::served`].
    serving: Vec<Serving>,
    admin: Arc<ArcSwap<Admin>>,
    idle: IdleTimeout,
}

// === impl Control ===

impl Control {
    pub(super) fn new(
        process: Process,
        generation: Generation,
        serving: Vec<Serving>,
        admin: Arc<ArcSwap<Admin>>,
        idle: IdleTimeout,
    ) -> Self {
        Self(Arc::new(Running {
            process,
            generation: Mutex::new(generation),
            serving,
            admin,
            idle,
        }))
    }

    /// Puts another configuration in force, for the requests that come from now on; those in flight go on as they began.
    /// Listeners, counters and open connections stay; so do tokens, unless they come from another
    /// credential now.
    ///
    /// What can change only at a start goes on as it was; the result names each such thing.
    ///
    /// # Errors
    ///
    /// The trust roots are unusable; then nothing has changed.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, where no token can be fetched.
    pub fn reload(&self, config: Config) -> Result<Vec<String>, BadRoots> {
        let process = &self.0.process;
        let mut generation = self.generation();
        let (config, mut waiting) = reload::merge_reload(&generation.asked, config);
        let upstream = if reload::same_upstreams(&generation.asked, &config) {
            generation.upstream.clone()
        } else {
            process.upstream(&config)?
        };
        let decider = if reload::same_sources(&generation.asked, &config) {
            generation.decider.with_policy(policy(&config))
        } else {
            // Tokens of the old credential are not those of the new one.
            decider(&config, process.metrics.clone())?
        };
        let decider = Arc::new(decider);
        process.shared.memory.set_limit(config.max_memory);
        self.0.idle.set(config.upstream.idle_timeout);
        waiting.extend(self.not_covered(&decider));
        let next = Generation::new(process, config, decider, upstream);
        for (serving, served) in self.0.serving.iter().zip(&next.served) {
            serving.store(Arc::new(served.clone()));
        }
        self.0.admin.store(Arc::new(next.admin.clone()));
        telemetry::adjust(&next.asked.log);
        let before = std::mem::replace(&mut *generation, next);
        drop(generation);
        for slot in slots(&before.decider, &before.routes) {
            slot.release();
        }
        self.prefetch();
        Ok(waiting)
    }

    /// The process was stopped and goes on: nobody knows which connections are still open at the other end, and which
    /// tokens have expired.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn resumed(&self) {
        let generation = self.generation();
        generation.upstream.close_idle();
        let _runs_in_background = generation.decider.tokens().refresh_stale();
    }

    /// The credential file that tokens come from, and what named it.
    pub fn credential_file(&self) -> Option<(CredentialName, FoundBy)> {
        let generation = self.generation();
        let credentials = &generation.asked.credentials;
        let file = credentials.file()?;
        Some((credentials.credential_name(), file.found_by))
    }

    /// Completes once the drain has begun.
    pub async fn drain_begun(&self) {
        self.0.process.lifecycle.drain_begun().await;
    }

    /// The end has begun.
    pub fn is_draining(&self) -> bool {
        self.0.process.lifecycle.is_draining()
    }

    /// Every route, for the log.
    pub fn routes(&self) -> Vec<RouteSummary> {
        self.generation().summaries()
    }

    /// What calls through the forward proxy get; none where there is no proxy.
    pub fn proxy_summary(&self) -> Option<String> {
        self.generation().proxy_summary()
    }

    /// How calls leave, where that is through a proxy.
    pub fn egress(&self) -> Option<String> {
        let generation = self.generation();
        let proxy = generation.asked.upstream.proxy.as_ref()?;
        Some(proxy.egress.summary())
    }

    /// Whether TLS of `CONNECT` is opened.
    pub fn intercepts(&self) -> bool {
        self.0.process.interception.is_some()
    }

    /// What to look at while no request has come in at all.
    pub(super) fn unused(&self) -> Option<String> {
        self.generation().admin.unused()
    }

    /// Fetches what the first requests will need. Nothing waits for it but readiness.
    pub(super) fn prefetch(&self) {
        let generation = self.generation();
        let (decider, routes) = (generation.decider.clone(), generation.routes.clone());
        drop(generation);
        tokio::spawn(async move {
            // A token that turns out to be of no use, because the universe is another one, is sent nowhere.
            fetch_tokens(&decider, &routes);
            // Its failure is in the log already; requests and probes will ask again.
            let _ = decider.learn().await;
            locate_routes(&decider, &routes).await;
            fetch_tokens(&decider, &routes);
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
        self.generation().asked.drain_timeout
    }

    /// The CA is made at the start, for the domains that got tokens then.
    fn not_covered(&self, decider: &Decider) -> Vec<String> {
        let Some(interception) = &self.0.process.interception else {
            return Vec::new();
        };
        let domains = decider.policy().granted_domains(&decider.universe());
        let strange = domains.into_iter().filter(|domain| {
            Host::parse(domain).is_ok_and(|host| !interception.interceptor.covers(&host))
        });
        strange
            .map(|domain| {
                format!("--intercept: TLS of CONNECT to {domain}, which the CA is not for")
            })
            .collect()
    }

    fn generation(&self) -> MutexGuard<'_, Generation> {
        lock(&self.0.generation)
    }
}

fn fetch_tokens(decider: &Decider, routes: &[Arc<Ingress>]) {
    for slot in slots(decider, routes) {
        slot.prefetch();
    }
}

/// Those of routes whose token is always the same.
fn slots<'a>(
    decider: &'a Decider,
    routes: &'a [Arc<Ingress>],
) -> impl Iterator<Item = Arc<Slot>> + 'a {
    routes
        .iter()
        .filter_map(|ingress| ingress.route()?.resolve(decider)?.slot)
}
