//! The parts that belong to one configuration, and those that belong to the process.

use std::fmt::Display;
use std::sync::Arc;

use super::entry_points::entry_points;
use super::sockets::BoundAddrs;
use crate::admin::{Admin, Lifecycle};
use crate::config::{Config, Listen, PassOrDeny, Route};
use crate::diagnostics::startup::{self, ConfigSummary, RouteSummary};
use crate::explain::Intercept;
use crate::proxy::{
    CredentialProvider, ForwardProxy, InFlight, Ingress, IngressKind, Interception,
    OpenedTunnelSender, RequestBody, RouteDecision, RouteIngress, SharedState, StackDeps, stack,
};
use crate::server::{Ingresses, ListenerState};
use crate::telemetry::Metrics;
use crate::token::Logins;
use crate::upstream::{BadRoots, DialPolicy, Upstream};

/// The parts of the process that a reload keeps.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) metrics: Arc<Metrics>,
    pub(super) logins: Logins,
    pub(super) bound: BoundAddrs,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) interception: Option<Interception>,
    pub(super) opened: OpenedTunnelSender,
    pub(super) shared: SharedState,
}

/// The parts that a reload replaces. Requests in flight keep their generation.
#[derive(Debug)]
pub(super) struct Generation {
    /// The configuration with the addresses as written. Port 0 is not replaced.
    pub(super) configured: Config,
    pub(super) provider: Arc<CredentialProvider>,
    pub(super) upstream: Upstream<RequestBody>,
    pub(super) routes: Vec<Arc<Ingress>>,
    /// The state of each listener: the forward proxy, then routes.
    pub(super) listener_states: Vec<ListenerState>,
    pub(super) admin: Admin,
}

// === impl Process ===

impl Process {
    /// Creates the connection pool of a configuration.
    pub(super) fn upstream(&self, config: &Config) -> Result<Upstream<RequestBody>, BadRoots> {
        Upstream::new(
            &config.upstream,
            DialPolicy {
                own: self.bound.addresses(),
                metadata: config.metadata_access == PassOrDeny::Deny,
                metadata_extra: Some((config.metadata.host.clone(), config.metadata.port)),
            },
            self.metrics.clone(),
            self.shared.memory.clone(),
        )
    }

    /// Returns the interception, for explanations.
    fn intercept(&self) -> Intercept {
        match &self.interception {
            Some(Interception { interceptor, .. }) => {
                let interceptor = interceptor.clone();
                Intercept::on(move |host| interceptor.covers(host))
            }
            None => Intercept::default(),
        }
    }

    fn ingress(&self, name: Arc<str>, kind: IngressKind) -> Arc<Ingress> {
        Arc::new(Ingress {
            metrics: Arc::new(self.metrics.listener(&name)),
            name,
            kind,
        })
    }
}

// === impl Generation ===

impl Generation {
    /// Creates the generation of a configuration whose listeners are bound.
    pub(super) fn new(
        process: &Process,
        configured: Config,
        provider: Arc<CredentialProvider>,
        upstream: Upstream<RequestBody>,
    ) -> Self {
        let mut config = configured.clone();
        process.bound.resolve_ports(&mut config);
        let config = Arc::new(config);
        let stack = Arc::new(stack(
            &config,
            StackDeps {
                provider: provider.clone(),
                upstream: upstream.clone(),
                metrics: process.metrics.clone(),
                interception: process.interception.clone(),
                opened: process.opened.clone(),
                shared: process.shared.clone(),
            },
        ));
        let (ingresses, routes) = ingresses(process, &config);
        let listener_states = ingresses.into_iter().map(|ingresses| ListenerState {
            stack: stack.clone(),
            ingresses,
            access_log: config.log.access,
        });
        Self {
            listener_states: listener_states.collect(),
            admin: Admin {
                provider: provider.clone(),
                lifecycle: process.lifecycle.clone(),
                metrics: process.metrics.clone(),
                routes: routes.as_slice().into(),
                allowed_hosts: config.allowed_hosts.as_slice().into(),
                entry_points: Arc::new(entry_points(
                    &config,
                    process.bound.addresses(),
                    process.intercept(),
                )),
                quitquitquit: config.quitquitquit,
                config,
            },
            configured,
            provider,
            upstream,
            routes,
        }
    }

    fn route_summaries(&self) -> Vec<RouteSummary> {
        let holder = self.provider.policy().credential_name().holder_or_default();
        let summary = |ingress: &Arc<Ingress>| {
            let route = ingress.route()?;
            Some(RouteSummary {
                name: ingress.name.clone(),
                address: match &route.route.listen {
                    Listen::Tcp(address) => format!("http://{address}{}", route.route.prefix),
                    Listen::Unix(path) => format!("unix:{}", path.display()),
                },
                upstream: route.route.upstream_url(),
                gets: match route.decide(&self.provider) {
                    None => startup::gets_later(route.route.service.is_some()).to_owned(),
                    Some(resolved) => startup::gets(&resolved.decision, holder),
                },
            })
        };
        self.routes.iter().filter_map(summary).collect()
    }

    /// Returns the summary of the configuration for the log.
    pub(super) fn summary(&self) -> ConfigSummary {
        let policy = self.provider.policy();
        let file = self.configured.credentials.file();
        let found_by = file.map(|file| &file.found_by as &dyn Display);
        let proxy = self.configured.upstream.proxy.as_ref();
        ConfigSummary {
            source: policy.credential_name().source,
            identities: startup::identities(
                policy,
                found_by,
                self.configured.credentials.is_certain(),
            ),
            proxy: self
                .configured
                .proxy
                .as_ref()
                .map(|_| startup::proxy_calls(policy, &self.provider.universe())),
            egress: proxy.map(|proxy| proxy.egress.summary()),
            routes: self.route_summaries(),
        }
    }
}

/// Returns the ingresses of each listener, and those of all routes.
fn ingresses(process: &Process, config: &Config) -> (Vec<Ingresses>, Vec<Arc<Ingress>>) {
    let (mut app, mut all) = (Vec::new(), Vec::new());
    if let Some(proxy) = &config.proxy {
        let forward =
            |auth| process.ingress("proxy".into(), IngressKind::Forward(ForwardProxy { auth }));
        let others = forward(proxy.auth.clone());
        app.push(Ingresses::Forward(others.clone()));
        if let Some((tree, _)) = &process.bound.tree {
            app.push(Ingresses::ByProcess {
                tree: tree.clone(),
                own: forward(None),
                others,
            });
        }
    }
    for (_, listen) in &process.bound.routes {
        let of_listener = config.routes.iter().filter(|route| route.listen == *listen);
        let address = of_listener
            .clone()
            .next()
            .map_or_else(Arc::default, listener_name);
        let prefixes: Arc<[String]> = of_listener
            .clone()
            .map(|route| route.prefix.clone())
            .collect();
        let ingresses: Vec<_> = of_listener
            .map(|route| {
                let kind = IngressKind::Route(Box::new(RouteIngress {
                    listener_prefixes: prefixes.clone(),
                    http: route.http.unwrap_or(config.upstream.http),
                    decision: RouteDecision::default(),
                    route: route.clone(),
                }));
                process.ingress(kind.route_name(), kind)
            })
            .collect();
        all.extend(ingresses.iter().cloned());
        let no_route = process.ingress(address, IngressKind::NoRoute);
        app.push(Ingresses::routes(ingresses, no_route));
    }
    (app, all)
}

/// Returns the name of a route's listener, without the route's prefix.
fn listener_name(route: &Route) -> Arc<str> {
    route.socket_name().into()
}
