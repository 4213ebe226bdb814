//! What is put together from one configuration, and what outlives it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::bound::Places;
use super::ways;
use crate::admin::{Admin, Lifecycle};
use crate::config::{Access, Config, Listen, Route};
use crate::destination::Host;
use crate::policy::{Decision, Grant, Line, TokenKind};
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
pub(super) struct Core {
    pub(super) metrics: Arc<Metrics>,
    pub(super) places: Places,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) interception: Option<Interception>,
    pub(super) opened: OpenedTunnelSender,
    pub(super) shared: SharedState,
}

/// What one configuration comes to. Requests keep what they began with.
#[derive(Debug)]
pub(super) struct Live {
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

// === impl Core ===

impl Core {
    /// A pool for the upstreams of this configuration.
    pub(super) fn upstream(&self, config: &Config) -> Result<Upstream<RequestBody>, BadRoots> {
        Upstream::new(
            &config.upstream,
            DialPolicy {
                own: self.places.addresses(),
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

// === impl Live ===

impl Live {
    /// Puts it together; every listener that the configuration names is there.
    pub(super) fn compose(
        core: &Core,
        asked: Config,
        decider: Arc<Decider>,
        upstream: Upstream<RequestBody>,
    ) -> Self {
        let mut config = asked.clone();
        core.places.settle(&mut config);
        let config = Arc::new(config);
        let stack = Arc::new(stack(
            &config,
            StackDeps {
                decider: decider.clone(),
                upstream: upstream.clone(),
                metrics: core.metrics.clone(),
                interception: core.interception.clone(),
                opened: core.opened.clone(),
                shared: core.shared.clone(),
            },
        ));
        let (ingresses, routes) = ingresses(core, &config);
        let served = ingresses.into_iter().map(|ingresses| ListenerState {
            stack: stack.clone(),
            ingresses,
            access_log: config.log.access,
        });
        Self {
            served: served.collect(),
            admin: Admin {
                decider: decider.clone(),
                lifecycle: core.lifecycle.clone(),
                metrics: core.metrics.clone(),
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
    pub(super) fn through_proxy(&self) -> Option<String> {
        self.asked.proxy.as_ref()?;
        let listing = self.decider.policy().listing(&self.decider.universe());
        let (table, rules): (Vec<_>, Vec<_>) = listing.iter().partition(|line| line.built_in);
        let more = match rules.len().saturating_sub(RULES) {
            0 => None,
            more => Some(format!("{more} more rules")),
        };
        let words = |line: &&Line| format!("{} {}", line.pattern, line.credential.as_str());
        let rules = rules.iter().take(RULES).map(words).chain(more);
        // That the metadata server and loopback get none goes without saying.
        let table = table.iter().skip(1).map(words);
        Some(rules.chain(table).collect::<Vec<_>>().join(", "))
    }
}

/// The ingresses of every listener, and of all of them those that are routes.
fn ingresses(core: &Core, config: &Config) -> (Vec<Ingresses>, Vec<Arc<Ingress>>) {
    let (mut app, mut all) = (Vec::new(), Vec::new());
    if let Some(proxy) = &config.proxy {
        let forward =
            |auth| core.ingress("proxy".into(), IngressKind::Forward(ForwardProxy { auth }));
        let others = forward(proxy.auth.clone());
        app.push(Ingresses::Forward(others.clone()));
        if let Some((tree, _)) = &core.places.tree {
            app.push(Ingresses::ByProcess {
                tree: tree.clone(),
                own: forward(None),
                others,
            });
        }
    }
    for (_, listen) in &core.places.routes {
        let mine = config.routes.iter().filter(|route| route.listen == *listen);
        let address = mine.clone().next().map_or_else(Arc::default, listener_name);
        let ingresses: Vec<_> = mine
            .map(|route| {
                let kind = IngressKind::Route(Box::new(RouteIngress {
                    http: route.http.unwrap_or(config.upstream.http),
                    decision: RouteDecision::default(),
                    route: route.clone(),
                }));
                core.ingress(kind.route_name(), kind)
            })
            .collect();
        all.extend(ingresses.iter().cloned());
        let no_route = core.ingress(address, IngressKind::NoRoute);
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
        Grant::Token(key) => match &key.kind {
            TokenKind::Access { .. } => format!("an access token ({})", decision.rule),
            TokenKind::Id { audience } => format!("an ID token for {audience} ({})", decision.rule),
            TokenKind::Jwt { audience } => {
                format!("a signed JWT for {audience} ({})", decision.rule)
            }
        },
        Grant::None(why) => format!("no token: {why}"),
        Grant::Deny(why) => format!("refused: {why}"),
    }
}
