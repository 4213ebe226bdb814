//! The only place where everything meets: from a [`Config`] to a running sidecar.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::{Admin, Lifecycle};
use crate::config::{Access, Config, Listen, Route};
use crate::destination::{Destination, Host};
use crate::intercept::{Interceptor, NoAuthority, NotWritten};
use crate::policy::{self, Decision, Grant, Policy, Settings, TokenKind};
use crate::proxy::{
    Activity, Decider, Entrance, Forward, Interception, Opened, Parts, RequestBody, RouteEntrance,
    Way, stack,
};
use crate::server::{Entrances, Family, Limits, Listener, ListenerError, Server};
use crate::telemetry::Metrics;
use crate::token::{Instance, MetadataClient, TokenCache, TokenSource};
use crate::upstream::{BadRoots, Refuse, Upstream};

/// Nothing in flight for this long, and a drain is over.
const QUIET: Duration = Duration::from_secs(1);

/// How long the start waits for the universe, where it must know it.
const UNIVERSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long idle connections get to hear that it is over.
const GOODBYE: Duration = Duration::from_millis(200);

/// A sidecar, bound and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    decider: Arc<Decider>,
    server: Server,
    opened: Option<mpsc::Receiver<Opened>>,
    activity: Arc<Activity>,
    lifecycle: Arc<Lifecycle>,
    listeners: Vec<(Listener, Entrances)>,
    routes: Vec<Arc<Entrance>>,
    admin: Option<(Listener, Admin)>,
}

/// Why a sidecar could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The trust roots are unusable.
    #[error(transparent)]
    Roots(#[from] BadRoots),
    /// There can be no interception.
    #[error(transparent)]
    Authority(#[from] NoAuthority),
    /// `--ca-dir` cannot be written to.
    #[error(transparent)]
    CaDir(#[from] NotWritten),
}

/// A route as the start-up log shows it.
#[derive(Debug)]
pub struct RouteSummary<'a> {
    /// As configured.
    pub name: &'a str,
    /// As an app calls it.
    pub address: String,
    /// Where it leads.
    pub upstream: String,
    /// What its calls get, for people.
    pub gets: String,
}

impl App {
    /// Binds every listener and puts the parts together. Callers may connect from now on; they are served by
    /// [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// An address that is taken, trust roots that cannot be read, or a directory that cannot be written to.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        Self::build_for(config, None).await
    }

    /// The same; where the proxy asks for credentials there is a second port of it, which asks this family for none.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub async fn build_for(mut config: Config, family: Option<Family>) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let bound = Bound::bind(&mut config, family).await?;

        let decider = Arc::new(decider(&config, metrics.clone()));
        let upstream: Upstream<RequestBody> = Upstream::new(
            &config.upstream,
            Refuse {
                own: bound.addresses(),
                metadata: config.metadata_access == Access::Deny,
                metadata_extra: metadata_address(&config),
            },
            metrics.clone(),
        )?;
        let (interception, opened) = interception(&config, &decider).await?.unzip();
        let activity = Arc::<Activity>::default();
        let stack = stack(
            &config,
            Parts {
                decider: decider.clone(),
                upstream,
                metrics: metrics.clone(),
                interception,
            },
        );
        let server = Server::new(
            stack,
            activity.clone(),
            config.log.access,
            Limits {
                connections: config.max_connections,
            },
        );

        let (listeners, routes) = bound.entrances(&config, &metrics);
        let lifecycle = Arc::new(Lifecycle::default());
        let admin = bound_admin(
            &config,
            &decider,
            &lifecycle,
            &metrics,
            &routes,
            listeners.admin,
        );
        Ok(Self {
            config,
            decider,
            server,
            opened,
            activity,
            lifecycle,
            listeners: listeners.app,
            routes,
            admin,
        })
    }

    /// Where the forward proxy listens.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.listeners
            .iter()
            .find(|(_, entrances)| matches!(entrances, Entrances::Forward(_)))
            .and_then(|(listener, _)| listener.tcp())
    }

    /// Where the forward proxy asks a family for no credentials.
    pub fn family_address(&self) -> Option<SocketAddr> {
        self.listeners
            .iter()
            .find(|(_, entrances)| matches!(entrances, Entrances::Family { .. }))
            .and_then(|(listener, _)| listener.tcp())
    }

    /// Where routes listen, in the order of the configuration's first mention.
    pub fn route_addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter(|(_, entrances)| matches!(entrances, Entrances::Routes(..)))
            .filter_map(|(listener, _)| listener.tcp())
            .collect()
    }

    /// Every route, for the start-up log.
    pub fn routes(&self) -> impl Iterator<Item = RouteSummary<'_>> {
        self.listeners
            .iter()
            .flat_map(|(listener, entrances)| {
                let entrances = match entrances {
                    Entrances::Forward(_) | Entrances::Family { .. } => &[],
                    Entrances::Routes(routes, _) => &**routes,
                };
                entrances.iter().map(move |entrance| (listener, entrance))
            })
            .filter_map(|(listener, entrance)| {
                let route = entrance.route()?;
                Some(RouteSummary {
                    name: &entrance.name,
                    address: match &listener.listen {
                        Listen::Tcp(address) => format!("http://{address}{}", route.route.prefix),
                        Listen::Unix(path) => format!("unix:{}", path.display()),
                    },
                    upstream: route.route.upstream_url(),
                    gets: match self.decider.resolve_route(route) {
                        None if route.route.service.is_some() => {
                            "once the metadata server has said where that is".to_owned()
                        }
                        None => "by the path of each call".to_owned(),
                        Some(resolved) => gets(&resolved.decision),
                    },
                })
            })
    }

    /// Where the admin port listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|(listener, _)| listener.tcp())
    }

    /// Serves until `shutdown` completes or the admin port is told to quit, then drains: still serving, until nothing has
    /// been in flight for a second or the drain's time is up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            config,
            decider,
            server,
            opened,
            activity,
            lifecycle,
            listeners,
            routes,
            admin,
        } = self;
        // Said before the first probe can ask.
        lifecycle.serving();
        for (listener, entrances) in listeners {
            server.listen(listener, entrances);
        }
        if let Some(opened) = opened {
            server.serve_opened(opened);
        }
        if let Some((listener, admin)) = admin {
            tokio::spawn(admin.serve(listener));
        }
        tokio::spawn(prefetch(decider, routes));

        tokio::select! {
            () = shutdown => {}
            () = lifecycle.asked_to_quit() => {}
        }
        lifecycle.draining();
        let deadline = Instant::now() + config.drain_timeout;
        tracing::info!(
            in_flight = activity.in_flight(),
            "draining: still serving, for at most {:?}",
            config.drain_timeout
        );
        let drained = tokio::time::timeout_at(deadline, activity.quiet(QUIET)).await;
        let goodbye = deadline.min(Instant::now() + GOODBYE);
        let _ = tokio::time::timeout_at(goodbye, server.close()).await;
        if drained.is_ok() {
            tracing::info!("drained");
        } else {
            tracing::warn!(
                in_flight = activity.in_flight(),
                "the drain's time is up: what is in flight is cut off"
            );
        }
    }
}

/// The rules and the table.
pub(crate) fn policy(config: &Config) -> Policy {
    Policy::new(
        config.rules.clone(),
        Settings {
            unmatched_denied: config.unmatched == Access::Deny,
            metadata_denied: config.metadata_access == Access::Deny,
            metadata: Some((config.metadata.host.clone(), config.metadata.port)),
            quota_project: config.quota_project.clone(),
            discover: config.discover,
        },
    )
}

/// Policy, tokens, and what the metadata server knows.
pub(crate) fn decider(config: &Config, metrics: Arc<Metrics>) -> Decider {
    let client = MetadataClient::new(&config.metadata, config.token_timeout);
    let instance = Instance::new(client.clone(), config.universe.clone());
    let tokens = TokenCache::new(TokenSource::Metadata(client), metrics);
    Decider::new(policy(config), tokens, instance)
}

/// The ways in, as configured, for explanations.
pub(crate) fn ways(config: &Config) -> policy::Ways {
    let routes = config.routes.iter().map(|route| policy::Way {
        name: route.name.clone(),
        url: match &route.listen {
            Listen::Tcp(address) => {
                Destination::parse(&format!("http://{address}{}", route.prefix)).ok()
            }
            Listen::Unix(_) => None,
        },
        upstream: route.upstream.clone(),
        service: route.service.clone(),
        options: route.options.clone(),
    });
    policy::Ways {
        proxy: config.proxy.as_ref().map(|proxy| proxy.listen.to_string()),
        intercept: config.intercept.is_some(),
        routes: routes.collect(),
    }
}

/// Makes the CA and writes what an app needs to trust it. The other end gives the tunnels that were opened.
async fn interception(
    config: &Config,
    decider: &Decider,
) -> Result<Option<(Interception, mpsc::Receiver<Opened>)>, StartError> {
    let Some(intercept) = config.intercept.as_ref().filter(|_| config.proxy.is_some()) else {
        return Ok(None);
    };
    // The universe's domain is one of those that the CA is for, and there is no adding to them later.
    let asked = tokio::time::timeout(UNIVERSE_PATIENCE, decider.instance().universe()).await;
    if !matches!(asked, Ok(Ok(_))) {
        tracing::warn!(
            "the universe domain is not known yet: of Google APIs, --intercept opens TLS to googleapis.com alone"
        );
    }
    let domains = decider.policy().granted_domains(&decider.universe());
    let interceptor = Interceptor::new(domains, intercept.ca_dir.clone(), SystemTime::now())?;
    interceptor.publish(config.upstream.system_ca_file.as_deref())?;
    if let Some(folder) = interceptor.ca_dir().map(Path::display) {
        tracing::info!(
            "TLS of CONNECT is opened where a token is due: the app must trust {folder}/bundle.pem (SSL_CERT_FILE), \
             {folder}/ca.pem (NODE_EXTRA_CA_CERTS) or {folder}/truststore.p12 (Java)"
        );
    }
    Ok(Some(Interception::new(Arc::new(interceptor))))
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
        },
        Grant::None(why) => format!("no token: {why}"),
        Grant::Deny(why) => format!("refused: {why}"),
    }
}

/// Fetches what the first requests will need. Nothing waits for it but readiness.
async fn prefetch(decider: Arc<Decider>, routes: Vec<Arc<Entrance>>) {
    // A token that turns out to be of no use, because the universe is another one, is sent nowhere.
    fetch_tokens(&decider, &routes);
    // Its failure is in the log already; requests and probes will ask again.
    let _ = decider.learn().await;
    decider.locate_routes(&routes).await;
    fetch_tokens(&decider, &routes);
}

fn fetch_tokens(decider: &Decider, routes: &[Arc<Entrance>]) {
    let resolved = routes
        .iter()
        .filter_map(|entrance| decider.resolve_route(entrance.route()?));
    for slot in resolved.filter_map(|resolved| resolved.slot) {
        slot.prefetch();
    }
}

/// Sockets by address; routes that share an address share a socket.
struct Bound {
    proxy: Option<Listener>,
    family: Option<(Family, Listener)>,
    routes: Vec<(Listener, Vec<Route>)>,
    admin: Option<Listener>,
}

struct Listeners {
    app: Vec<(Listener, Entrances)>,
    admin: Option<Listener>,
}

impl Bound {
    /// Binds everything; free ports become real ones in the configuration too.
    async fn bind(config: &mut Config, family: Option<Family>) -> Result<Self, ListenerError> {
        let proxy = match &mut config.proxy {
            Some(proxy) => {
                let listener = Listener::bind(&Listen::Tcp(proxy.listen)).await?;
                proxy.listen = listener.tcp().unwrap_or(proxy.listen);
                Some(listener)
            }
            None => None,
        };
        let asking = config.proxy.as_ref().filter(|proxy| proxy.auth.is_some());
        let family = match asking.zip(family) {
            Some((proxy, family)) => {
                let beside = SocketAddr::new(proxy.listen.ip(), 0);
                Some((family, Listener::bind(&Listen::Tcp(beside)).await?))
            }
            None => None,
        };
        let mut shared: BTreeMap<Listen, usize> = BTreeMap::new();
        let mut routes: Vec<(Listener, Vec<Route>)> = Vec::new();
        for route in &mut config.routes {
            // Port 0 is a free port each time.
            let free = matches!(&route.listen, Listen::Tcp(address) if address.port() == 0);
            match shared.get(&route.listen).filter(|_| !free) {
                Some(index) => {
                    if let Some((_, sharing)) = routes.get_mut(*index) {
                        sharing.push(route.clone());
                    }
                }
                None => {
                    let listener = Listener::bind(&route.listen).await?;
                    shared.insert(route.listen.clone(), routes.len());
                    route.listen = listener.listen.clone();
                    routes.push((listener, vec![route.clone()]));
                }
            }
        }
        let admin = match config.admin {
            Some(address) => Some(Listener::bind(&Listen::Tcp(address)).await?),
            None => None,
        };
        Ok(Self {
            proxy,
            family,
            routes,
            admin,
        })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let routes = self.routes.iter().map(|(listener, _)| listener);
        self.proxy
            .iter()
            .chain(self.family.as_ref().map(|(_, listener)| listener))
            .chain(routes)
            .chain(&self.admin)
            .filter_map(Listener::tcp)
            .collect()
    }

    fn entrances(self, config: &Config, metrics: &Metrics) -> (Listeners, Vec<Arc<Entrance>>) {
        let entrance = |name: Arc<str>, way| {
            Arc::new(Entrance {
                metrics: Arc::new(metrics.listener(&name)),
                name,
                way,
            })
        };
        let mut app = Vec::new();
        let mut all = Vec::new();
        if let Some(listener) = self.proxy {
            let auth = config.proxy.as_ref().and_then(|proxy| proxy.auth.clone());
            let forward = entrance("proxy".into(), Way::Forward(Forward { auth }));
            if let Some((family, listener)) = self.family {
                let own = entrance("proxy".into(), Way::Forward(Forward { auth: None }));
                let others = forward.clone();
                let entrances = Entrances::Family {
                    family,
                    own,
                    others,
                };
                app.push((listener, entrances));
            }
            app.push((listener, Entrances::Forward(forward)));
        }
        for (listener, routes) in self.routes {
            let address = routes.first().map_or_else(Arc::default, listener_name);
            let entrances: Vec<_> = routes
                .into_iter()
                .map(|route| {
                    let http = route.http.unwrap_or(config.upstream.http);
                    let way = Way::Route(Box::new(RouteEntrance {
                        http,
                        resolved: OnceLock::new(),
                        route,
                    }));
                    entrance(way.route_name(), way)
                })
                .collect();
            all.extend(entrances.iter().cloned());
            let nowhere = entrance(address, Way::Nowhere);
            app.push((listener, Entrances::routes(entrances, nowhere)));
        }
        let listeners = Listeners {
            app,
            admin: self.admin,
        };
        (listeners, all)
    }
}

/// The listener of a route, without the route's prefix.
fn listener_name(route: &Route) -> Arc<str> {
    route.socket_name().into()
}

fn bound_admin(
    config: &Config,
    decider: &Arc<Decider>,
    lifecycle: &Arc<Lifecycle>,
    metrics: &Arc<Metrics>,
    routes: &[Arc<Entrance>],
    listener: Option<Listener>,
) -> Option<(Listener, Admin)> {
    listener.map(|listener| {
        let admin = Admin {
            decider: decider.clone(),
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            routes: routes.into(),
            allowed_hosts: config.allowed_hosts.as_slice().into(),
            ways: Arc::new(ways(config)),
            quitquitquit: config.quitquitquit,
            config: Arc::new(Config {
                admin: listener.tcp(),
                ..config.clone()
            }),
        };
        (listener, admin)
    })
}
