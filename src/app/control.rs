//! What can be done to a sidecar that runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::bound::Places;
use super::live::{Core, Live, RouteSummary};
use super::{decider, policy, reload};
use crate::admin::{Admin, Lifecycle};
use crate::config::Config;
use crate::credentials::FoundBy;
use crate::destination::Host;
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
    core: Core,
    live: Mutex<Live>,
    /// As [`Live::served`].
    serving: Vec<Serving>,
    admin: Arc<ArcSwap<Admin>>,
    idle: IdleTimeout,
}

// === impl Control ===

impl Control {
    pub(super) fn new(
        core: Core,
        live: Live,
        serving: Vec<Serving>,
        admin: Arc<ArcSwap<Admin>>,
        idle: IdleTimeout,
    ) -> Self {
        Self(Arc::new(Running {
            core,
            live: Mutex::new(live),
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
        let core = &self.0.core;
        let mut live = self.live();
        let (config, mut waiting) = reload::in_force(&live.asked, config);
        let upstream = if reload::same_upstreams(&live.asked, &config) {
            live.upstream.clone()
        } else {
            core.upstream(&config)?
        };
        let decider = if reload::same_sources(&live.asked, &config) {
            live.decider.with_policy(policy(&config))
        } else {
            // Tokens of the old credential are not those of the new one.
            decider(&config, core.metrics.clone())?
        };
        let decider = Arc::new(decider);
        core.shared.memory.set_limit(config.max_memory);
        self.0.idle.set(config.upstream.idle_timeout);
        waiting.extend(self.not_covered(&decider));
        let next = Live::compose(core, config, decider, upstream);
        for (serving, served) in self.0.serving.iter().zip(&next.served) {
            serving.store(Arc::new(served.clone()));
        }
        self.0.admin.store(Arc::new(next.admin.clone()));
        telemetry::adjust(&next.asked.log);
        let before = std::mem::replace(&mut *live, next);
        drop(live);
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
    pub fn thawed(&self) {
        let live = self.live();
        live.upstream.close_idle();
        let _behind_us = live.decider.tokens().refresh_stale();
    }

    /// The credential file that tokens come from, and what named it.
    pub fn credential_file(&self) -> Option<(CredentialName, FoundBy)> {
        let live = self.live();
        let credentials = &live.asked.credentials;
        let file = credentials.file()?;
        Some((credentials.credential_name(), file.found_by))
    }

    /// Completes once the drain has begun.
    pub async fn drain_begun(&self) {
        self.0.core.lifecycle.drain_begun().await;
    }

    /// The end has begun.
    pub fn is_draining(&self) -> bool {
        self.0.core.lifecycle.is_draining()
    }

    /// Every route, for the log.
    pub fn routes(&self) -> Vec<RouteSummary> {
        self.live().summaries()
    }

    /// What calls through the forward proxy get; none where there is no proxy.
    pub fn through_proxy(&self) -> Option<String> {
        self.live().through_proxy()
    }

    /// How calls leave, where that is through a proxy.
    pub fn egress(&self) -> Option<String> {
        let live = self.live();
        let proxy = live.asked.upstream.proxy.as_ref()?;
        Some(proxy.egress.summary())
    }

    /// Whether TLS of `CONNECT` is opened.
    pub fn intercepts(&self) -> bool {
        self.0.core.interception.is_some()
    }

    /// What to look at while no request has come in at all.
    pub(super) fn unused(&self) -> Option<String> {
        self.live().admin.unused()
    }

    /// Fetches what the first requests will need. Nothing waits for it but readiness.
    pub(super) fn prefetch(&self) {
        let live = self.live();
        let (decider, routes) = (live.decider.clone(), live.routes.clone());
        drop(live);
        tokio::spawn(async move {
            // A token that turns out to be of no use, because the universe is another one, is sent nowhere.
            fetch_tokens(&decider, &routes);
            // Its failure is in the log already; requests and probes will ask again.
            let _ = decider.learn().await;
            locate_routes(&decider, &routes).await;
            fetch_tokens(&decider, &routes);
        });
    }

    pub(super) fn places(&self) -> &Places {
        &self.0.core.places
    }

    pub(super) fn in_flight(&self) -> &Arc<InFlight> {
        &self.0.core.in_flight
    }

    pub(super) fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.0.core.lifecycle
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.live().asked.drain_timeout
    }

    /// The CA is made at the start, for the domains that got tokens then.
    fn not_covered(&self, decider: &Decider) -> Vec<String> {
        let Some(interception) = &self.0.core.interception else {
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

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
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
