//! Binds the sockets. Routes with the same address share a socket.

use std::net::{Ipv6Addr, SocketAddr};

use crate::config::{Config, Listen, Route};
use crate::server::{Listener, ListenerError, ProcessTree};

/// The bound addresses, with the actual ports instead of port 0. They are kept as long as the process.
#[derive(Debug)]
pub(super) struct BoundAddrs {
    pub(super) proxy: Option<Listen>,
    /// The address on which the forward proxy accepts these processes without credentials.
    pub(super) tree: Option<(ProcessTree, Listen)>,
    pub(super) routes: Vec<(RouteListener, Listen)>,
    pub(super) admin: Option<SocketAddr>,
    /// The additional addresses on ::1.
    on_ipv6: Vec<SocketAddr>,
}

/// The listener of a route: an address, and a prefix if the port is 0, because each prefix then gets its own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteListener {
    listen: Listen,
    prefix: Option<String>,
}

/// The sockets. A listener has one, or one for each address family.
pub(super) struct Sockets {
    /// Sorted as in [`BoundAddrs`].
    pub(super) app: Vec<Vec<Listener>>,
    pub(super) admin: Vec<Listener>,
}

/// Binds all listeners.
pub(super) async fn bind(
    config: &Config,
    tree: Option<ProcessTree>,
) -> Result<(BoundAddrs, Sockets), ListenerError> {
    let mut app = Vec::new();
    let proxy = match &config.proxy {
        Some(proxy) => {
            let on_ipv6 = proxy.on_ipv6 && !is_configured(config, proxy.listen);
            let listeners = bind_both_families(proxy.listen, on_ipv6)
                .await
                .map_err(|error| error.of_option("--proxy"))?;
            Some(add(Listen::Tcp(proxy.listen), listeners, &mut app))
        }
        None => None,
    };
    let asking = config.proxy.as_ref().filter(|proxy| proxy.auth.is_some());
    let tree = match asking.zip(tree) {
        Some((proxy, tree)) => {
            let beside = Listen::Tcp(SocketAddr::new(proxy.listen.ip(), 0));
            let listener = Listener::bind(&beside).await?;
            Some((tree, add(beside, vec![listener], &mut app)))
        }
        None => None,
    };
    let mut routes: Vec<(RouteListener, Listen)> = Vec::new();
    for route in &config.routes {
        let asked = RouteListener::by(route);
        if routes.iter().all(|(other, _)| *other != asked) {
            let mut shared = config
                .routes
                .iter()
                .filter(|other| RouteListener::by(other) == asked);
            let listeners = match &route.listen {
                Listen::Tcp(address) => {
                    let on_ipv6 =
                        shared.any(|other| other.on_ipv6) && !is_configured(config, *address);
                    bind_both_families(*address, on_ipv6).await
                }
                Listen::Unix(_) => {
                    let mode = shared.find_map(|other| other.mode);
                    let listener = Listener::bind_with(&route.listen, mode).await;
                    listener.map(|listener| vec![listener])
                }
            };
            let option = format!("--route {}=…", route.name);
            let listeners = listeners.map_err(|error| error.of_option(&option))?;
            routes.push((asked, add(route.listen.clone(), listeners, &mut app)));
        }
    }
    let admin = match config.admin {
        Some(address) => {
            let on_ipv6 = config.admin_on_ipv6 && !is_configured(config, address);
            bind_both_families(address, on_ipv6)
                .await
                .map_err(|error| error.of_option("--admin"))?
        }
        None => Vec::new(),
    };
    let second = |listeners: &Vec<Listener>| listeners.get(1).and_then(Listener::tcp);
    let bound = BoundAddrs {
        proxy,
        tree,
        routes,
        admin: admin.first().and_then(Listener::tcp),
        on_ipv6: app.iter().chain([&admin]).filter_map(second).collect(),
    };
    Ok((bound, Sockets { app, admin }))
}

/// Binds an address, and with `on_ipv6` its port on ::1 too.
async fn bind_both_families(
    address: SocketAddr,
    on_ipv6: bool,
) -> Result<Vec<Listener>, ListenerError> {
    if !on_ipv6 {
        return Ok(vec![Listener::bind(&Listen::Tcp(address)).await?]);
    }
    let (first, second) = Listener::bind_loopback(address.port()).await?;
    Ok([first].into_iter().chain(second).collect())
}

/// Returns whether the configuration has another listener for the port on ::1.
fn is_configured(config: &Config, address: SocketAddr) -> bool {
    let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    let proxy = config.proxy.iter().map(|proxy| proxy.listen);
    let routes = config.routes.iter().filter_map(|route| tcp(&route.listen));
    let mut all = proxy.chain(routes).chain(config.admin);
    twin.port() != 0 && all.any(|other| other == twin)
}

/// Adds the sockets of one listener. Returns the address of the first.
fn add(asked: Listen, listeners: Vec<Listener>, sockets: &mut Vec<Vec<Listener>>) -> Listen {
    let is = listeners.first().map(|listener| listener.listen.clone());
    sockets.push(listeners);
    is.unwrap_or(asked)
}

/// Returns the address if it is a TCP address.
pub(super) fn tcp(listen: &Listen) -> Option<SocketAddr> {
    match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    }
}

// === impl RouteListener ===

impl RouteListener {
    pub(super) fn by(route: &Route) -> Self {
        let free = tcp(&route.listen).is_some_and(|address| address.port() == 0);
        Self {
            listen: route.listen.clone(),
            prefix: free.then(|| route.prefix.clone()),
        }
    }
}

// === impl BoundAddrs ===

impl BoundAddrs {
    /// Replaces the configured addresses by the bound ones.
    pub(super) fn resolve_ports(&self, config: &mut Config) {
        if let (Some(proxy), Some(address)) = (&mut config.proxy, self.proxy.as_ref().and_then(tcp))
        {
            proxy.listen = address;
        }
        for route in &mut config.routes {
            let asked = RouteListener::by(route);
            if let Some((_, is)) = self.routes.iter().find(|(other, _)| *other == asked) {
                route.listen = is.clone();
            }
        }
        config.admin = self.admin;
    }

    /// Returns every TCP address.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let tree = self.tree.as_ref().map(|(_, listen)| listen);
        let routes = self.routes.iter().map(|(_, listen)| listen);
        let app = self.proxy.iter().chain(tree).chain(routes);
        let app = app.filter_map(tcp).chain(self.admin);
        app.chain(self.on_ipv6.iter().copied()).collect()
    }
}
