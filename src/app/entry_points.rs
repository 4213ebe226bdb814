//! The addresses at which calls enter, for explanations.

use std::net::{Ipv6Addr, SocketAddr};

use super::sockets::tcp;
use crate::config::{Config, Listen};
use crate::destination::Destination;
use crate::explain;
use crate::upstream::{DialPolicy, bypass};

/// Returns the configured entry points of calls, for explanations. The listeners need not be bound.
pub(crate) fn configured_entry_points(config: &Config) -> explain::EntryPoints {
    let listener = |address: SocketAddr, on_ipv6: bool| {
        let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
        [Some(address), on_ipv6.then_some(twin)]
    };
    let proxy = config.proxy.as_ref();
    let proxy = proxy.map(|proxy| listener(proxy.listen, proxy.on_ipv6));
    let admin = config
        .admin
        .map(|admin| listener(admin, config.admin_on_ipv6));
    let routes = config.routes.iter().filter_map(|route| {
        let address = tcp(&route.listen)?;
        Some(listener(address, route.on_ipv6))
    });
    let own = proxy.into_iter().chain(admin).chain(routes);
    let intercept = match config.intercept {
        Some(_) => explain::Intercept::at_start(),
        None => explain::Intercept::default(),
    };
    entry_points(config, own.flatten().flatten().collect(), intercept)
}

/// Returns the entry points of calls, for explanations. `own` are the addresses of all listeners.
pub(super) fn entry_points(
    config: &Config,
    own: Vec<SocketAddr>,
    intercept: explain::Intercept,
) -> explain::EntryPoints {
    let dial_policy = DialPolicy {
        own,
        ..DialPolicy::default()
    };
    let connect_to = config.upstream.connect_to.clone();
    let routes = config.routes.iter().map(|route| explain::RouteEntry {
        name: route.name.clone(),
        url: match &route.listen {
            Listen::Tcp(address) => {
                Destination::parse(&format!("http://{address}{}", route.prefix)).ok()
            }
            Listen::Unix(_) => None,
        },
        prefix: route.prefix.clone(),
        upstream: route.upstream.clone(),
        service: route.service.clone(),
        options: route.options.clone(),
    });
    explain::EntryPoints {
        own: explain::OwnListeners::new(move |origin| dial_policy.leads_here(&connect_to, origin)),
        proxy: config.proxy.as_ref().map(|proxy| proxy.listen.to_string()),
        intercept,
        ca_dir: config
            .intercept
            .as_ref()
            .and_then(|intercept| intercept.ca_dir.as_ref())
            .map(|folder| folder.display().to_string()),
        routes: routes.collect(),
        egress: config.upstream.proxy.as_ref().map(|proxy| {
            let (proxy, connect_to) = (proxy.egress.clone(), config.upstream.connect_to.clone());
            let name = proxy.to_string();
            explain::Egress::new(name, move |origin| bypass(&proxy, &connect_to, origin))
        }),
    }
}
