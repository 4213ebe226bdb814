//! Sockets by address; routes that share an address share a socket.

use std::net::SocketAddr;

use crate::config::{Config, Listen, Route};
use crate::server::{Family, Listener, ListenerError};

/// Where the listeners really are: port 0 has become a free one. They stay for as long as the process.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) proxy: Option<Listen>,
    /// Where the forward proxy asks these processes for no credentials.
    pub(super) family: Option<(Family, Listen)>,
    pub(super) routes: Vec<(Asked, Listen)>,
    pub(super) admin: Option<SocketAddr>,
}

/// The listener that a route asks for: an address and, of port 0, which is a free port each time, one for each prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    listen: Listen,
    prefix: Option<String>,
}

/// The sockets.
pub(super) struct Sockets {
    /// In the order of [`Places`].
    pub(super) app: Vec<Listener>,
    pub(super) admin: Option<Listener>,
}

/// Binds everything.
pub(super) async fn bind(
    config: &Config,
    family: Option<Family>,
) -> Result<(Places, Sockets), ListenerError> {
    let mut app = Vec::new();
    let proxy = match &config.proxy {
        Some(proxy) => Some(bound(&Listen::Tcp(proxy.listen), &mut app).await?),
        None => None,
    };
    let asking = config.proxy.as_ref().filter(|proxy| proxy.auth.is_some());
    let family = match asking.zip(family) {
        Some((proxy, family)) => {
            let beside = Listen::Tcp(SocketAddr::new(proxy.listen.ip(), 0));
            Some((family, bound(&beside, &mut app).await?))
        }
        None => None,
    };
    let mut routes: Vec<(Asked, Listen)> = Vec::new();
    for route in &config.routes {
        let asked = Asked::by(route);
        if routes.iter().all(|(other, _)| *other != asked) {
            let mode = config
                .routes
                .iter()
                .filter(|other| other.listen == route.listen)
                .find_map(|other| other.mode);
            let listener = Listener::bind_with(&route.listen, mode).await?;
            routes.push((asked, listener.listen.clone()));
            app.push(listener);
        }
    }
    let admin = match config.admin {
        Some(address) => Some(Listener::bind(&Listen::Tcp(address)).await?),
        None => None,
    };
    let places = Places {
        proxy,
        family,
        routes,
        admin: admin.as_ref().and_then(Listener::tcp),
    };
    Ok((places, Sockets { app, admin }))
}

async fn bound(asked: &Listen, sockets: &mut Vec<Listener>) -> Result<Listen, ListenerError> {
    let listener = Listener::bind(asked).await?;
    let is = listener.listen.clone();
    sockets.push(listener);
    Ok(is)
}

/// The TCP address, where it is one.
pub(super) fn tcp(listen: &Listen) -> Option<SocketAddr> {
    match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    }
}

// === impl Asked ===

impl Asked {
    pub(super) fn by(route: &Route) -> Self {
        let free = tcp(&route.listen).is_some_and(|address| address.port() == 0);
        Self {
            listen: route.listen.clone(),
            prefix: free.then(|| route.prefix.clone()),
        }
    }
}

// === impl Places ===

impl Places {
    /// Puts real addresses in the place of those that were asked for.
    pub(super) fn settle(&self, config: &mut Config) {
        if let (Some(proxy), Some(address)) = (&mut config.proxy, self.proxy.as_ref().and_then(tcp))
        {
            proxy.listen = address;
        }
        for route in &mut config.routes {
            let asked = Asked::by(route);
            if let Some((_, is)) = self.routes.iter().find(|(other, _)| *other == asked) {
                route.listen = is.clone();
            }
        }
        config.admin = self.admin;
    }

    /// Every TCP address.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let family = self.family.as_ref().map(|(_, listen)| listen);
        let routes = self.routes.iter().map(|(_, listen)| listen);
        let app = self.proxy.iter().chain(family).chain(routes);
        app.filter_map(tcp).chain(self.admin).collect()
    }
}
