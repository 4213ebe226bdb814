//! What is put together from one configuration, and what outlives it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::sockets::BoundAddrs;
use super::ways;
use crate::admin::{Admin, Lifecycle};
use crate::config::{Access, Config, Listen, Route};
use crate::destination::Host;
use crate::policy::{CredentialGrant, Decision, PolicyEntry, TokenKind};
use crate::proxy::{
    Decider, ForwardProxy, InFlight, Ingress, IngressKind, Interception, OpenedTunnelSender,
    RequestBody, RouteDecision, RouteIngress, SharedState, StackDeps, stack,
};
use crate::server::{Ingresses, ListenerState};
use crate::telemetry::Metrics;
use crate::upstream::{BadRoots, DialPolicy, Upstream};

/// Rules that the log names at the start.
const RULES: usize = 10;

/// What stays when the configuration changes.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) metrics: Arc<Metrics>,
    pub(super) bound: BoundAddrs,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) interception: Option<Interception>,
    pub(super) opened: OpenedTunnelSender,
    pub(super) shared: SharedState,
}

/// What one configuration comes to. Requests keep what they began with.
#[derive(Debug)]
pub(super) struct Generation {
    /// In force, with the addresses that were asked for.
    pub(super) asked: Config,
    pub(super) decider: Arc<Decider>,
    pub(super) upstream: Upstream<RequestBody>,
    pub(super) routes: Vec<Arc<Ingress>>,
    /// In the order of the listeners: forward proxy, then those of routes.
    pub(super) served: Vec<ListenerState>,
    pub(super) admin: Admin,
}

/// A route as the log shows it.
#[derive(Debug)]
pub struct RouteSummary {
    /// As configured.
    pub name: Arc<str>,
    /// As an app calls it.
    pub address: String,
    /// Where it leads.
    pub upstream: String,
    /// What its calls get, for people.
    pub gets: String,
}

// === impl Process ===

impl Process {
    /// A pool for the upstreams of this configuration.
    pub(super) fn upstream(&self, config: &Config) -> Result<Upstream<RequestBody>, BadRoots> {
        Upstream::new(
            &config.upstream,
            DialPolicy {
                own: self.bound.addresses(),
                metadata: config.metadata_access == Access::Deny,
                metadata_extra: metadata_address(config),
            },
            self.metrics.clone(),
            self.shared.memory.clone(),
        )
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
    /// Puts it together; every listener that the configuration names is there.
    pub(super) fn new(
        process: &Process,
        asked: Config,
        decider: Arc<Decider>,
        upstream: Upstream<RequestBody>,
    ) -> Self {
        let mut config = asked.clone();
        process.bound.resolve_ports(&mut config);
        let config = Arc::new(config);
        let stack = Arc::new(stack(
            &config,
            StackDeps {
                decider: decider.clone(),
                upstream: upstream.clone(),
                metrics: process.metrics.clone(),
                interception: process.interception.clone(),
                opened: process.opened.clone(),
                shared: process.shared.clone(),
            },
        ));
        let (ingresses, routes) = ingresses(process, &config);
        let served = ingresses.into_iter().map(|ingresses| ListenerState {
            stack: stack.clone(),
            ingresses,
            access_log: config.log.access,
        });
        Self {
            served: served.collect(),
            admin: Admin {
                decider: decider.clone(),
                lifecycle: process.lifecycle.clone(),
                metrics: process.metrics.clone(),
                routes: routes.as_slice().into(),
                allowed_hosts: config.allowed_hosts.as_slice().into(),
                ways: Arc::new(ways(&config)),
                quitquitquit: config.quitquitquit,
                config,
            },
            asked,
            decider,
            upstream,
            routes,
        }
    }

    /// Every route, for the log.
    pub(super) fn summaries(&self) -> Vec<RouteSummary> {
        let summary = |ingress: &Arc<Ingress>| {
            let route = ingress.route()?;
            Some(RouteSummary {
                name: ingress.name.clone(),
                address: match &route.route.listen {
                    Listen::Tcp(address) => format!("http://{address}{}", route.route.prefix),
                    Listen::Unix(path) => format!("unix:{}", path.display()),
                },
                upstream: route.route.upstream_url(),
                gets: match route.resolve(&self.decider) {
                    None if route.route.service.is_some() => {
                        "once the metadata server has said where that is".to_owned()
                    }
                    None => "by the path of each call".to_owned(),
                    Some(resolved) => gets(&resolved.decision),
                },
            })
        };
        self.routes.iter().filter_map(summary).collect()
    }

    /// What calls through the forward proxy get, for the log.
    pub(super) fn proxy_summary(&self) -> Option<String> {
        self.asked.proxy.as_ref()?;
        let listing = self.decider.policy().listing(&self.decider.universe());
        let (table, rules): (Vec<_>, Vec<_>) = listing.iter().partition(|line| line.built_in);
        let more = match rules.len().saturating_sub(RULES) {
            0 => None,
            more => Some(format!("{more} more rules")),
        };
        let words = |line: &&PolicyEntry| format!("{} {}", line.pattern, line.credential.as_str());
        let rules = rules.iter().take(RULES).map(words).chain(more);
        // That the metadata server and loopback get none goes without saying.
        let table = table.iter().skip(1).map(words);
        Some(rules.chain(table).collect::<Vec<_>>().join(", "))
    }
}

/// The ingresses of every listener, and of all of them those that are routes.
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
        let mine = config.routes.iter().filter(|route| route.listen == *listen);
        let address = mine.clone().next().map_or_else(Arc::default, listener_name);
        let ingresses: Vec<_> = mine
            .map(|route| {
                let kind = IngressKind::Route(Box::new(RouteIngress {
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

/// The listener of a route, without the route's prefix.
fn listener_name(route: &Route) -> Arc<str> {
    route.socket_name().into()
}

/// Where the metadata server is, where the configuration names an address.
fn metadata_address(config: &Config) -> Option<SocketAddr> {
    match config.metadata.host {
        Host::Ip(address) => Some(SocketAddr::new(address, config.metadata.port)),
        Host::Name(_) => None,
    }
}

/// What calls get, for people.
fn gets(decision: &Decision) -> String {
    match &decision.grant {
        CredentialGrant::Token(key) => match &key.kind {
            TokenKind::Access { .. } => format!("an access token ({})", decision.rule),
            TokenKind::Id { audience } => format!("an ID token for {audience} ({})", decision.rule),
            TokenKind::Jwt { audience } => {
                format!("a signed JWT for {audience} ({})", decision.rule)
            }
        },
        CredentialGrant::None(why) => format!("no token: {why}"),
        CredentialGrant::Deny(why) => format!("refused: {why}"),
    }
}
