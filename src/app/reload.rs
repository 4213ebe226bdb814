//! Merges a new configuration with the running one at a reload.

use std::fmt::Display;

use super::sockets::RouteListener;
use crate::config::{Config, OptionKey, Reload, Route};

/// Returns the configuration to apply, and a sentence for each change that needs a restart. Such changes are not
/// applied.
pub(super) fn merge_reload(old: &Config, new: Config) -> (Config, Vec<String>) {
    let mut needs_restart = Vec::new();
    let mut config = new;
    let listens = |config: &Config| config.proxy.as_ref().map(|proxy| proxy.listen);
    let on_ipv6 = |config: &Config| config.proxy.as_ref().is_some_and(|proxy| proxy.on_ipv6);
    if (listens(old), on_ipv6(old)) != (listens(&config), on_ipv6(&config)) {
        needs_restart.push(format!(
            "--proxy {} takes effect after a restart; until then {} stays",
            or_off(listens(&config)),
            or_off(listens(old))
        ));
        config.proxy.clone_from(&old.proxy);
    }
    if (old.admin, old.admin_on_ipv6) != (config.admin, config.admin_on_ipv6) {
        needs_restart.push(format!(
            "--admin {} takes effect after a restart; until then {} stays",
            or_off(config.admin),
            or_off(old.admin)
        ));
        config.admin = old.admin;
        config.admin_on_ipv6 = old.admin_on_ipv6;
    }
    config.routes = routes(&old.routes, &config.routes, &mut needs_restart);
    if old.intercept != config.intercept {
        needs_restart.push(kept("a change of --intercept or --ca-dir"));
        config.intercept.clone_from(&old.intercept);
    }
    for option in OptionKey::ALL {
        if let Reload::Restart(keep) = option.spec().reload
            && keep(&mut config, old)
        {
            needs_restart.push(kept(&format!("--{}", option.as_str())));
        }
    }
    if old.metadata != config.metadata {
        needs_restart.push(kept(
            "the address of the metadata server (GCE_METADATA_HOST)",
        ));
        config.metadata.clone_from(&old.metadata);
    }
    (config, needs_restart)
}

/// Returns whether the connection pool can be kept.
pub(super) fn same_upstreams(old: &Config, new: &Config) -> bool {
    old.upstream == new.upstream && old.metadata_access == new.metadata_access
}

/// Returns whether the token sources and their tokens can be kept.
pub(super) fn same_sources(old: &Config, new: &Config) -> bool {
    old.credentials.base == new.credentials.base
        && old.universe == new.universe
        && (old.upstream == new.upstream || !uses_endpoints(new))
}

/// Returns whether a token may come from an endpoint. Otherwise the metadata server's tokens are kept, because it may
/// be down.
fn uses_endpoints(config: &Config) -> bool {
    let rules = config.rules.iter().map(|rule| &rule.options);
    let routes = config.routes.iter().map(|route| &route.options);
    config.credentials.file().is_some()
        || config.impersonate.is_some()
        || rules.chain(routes).any(|options| {
            options.impersonate.is_some() || options.subject.is_some() || options.jwt
        })
}

/// Returns the new routes on existing listeners, and the old routes of listeners that the new configuration does not
/// name.
fn routes(old: &[Route], new: &[Route], needs_restart: &mut Vec<String>) -> Vec<Route> {
    let on = |routes: &[Route], route: &Route| {
        let asked = RouteListener::by(route);
        routes.iter().any(|other| RouteListener::by(other) == asked)
    };
    let (mut routes, added) = new
        .iter()
        .cloned()
        .partition::<Vec<_>, _>(|route| on(old, route));
    for route in added {
        needs_restart.push(format!(
            "route {} to {} takes effect after a restart, because it needs a new listener",
            route.name,
            route.upstream_url()
        ));
    }
    for route in &routes {
        let mode = |routes: &[Route]| {
            let mut shared = routes.iter().filter(|other| other.listen == route.listen);
            shared.find_map(|other| other.mode).unwrap_or(Route::MODE)
        };
        let (before, now) = (mode(old), mode(new));
        if before != now {
            needs_restart.push(format!(
                "route {}: mode={now:04o} takes effect after a restart; until then {before:04o} stays",
                route.name
            ));
        }
    }
    for route in old.iter().filter(|route| !on(new, route)) {
        needs_restart.push(format!(
            "the removal of route {} to {} takes effect after a restart; until then its listener serves",
            route.name,
            route.upstream_url()
        ));
        routes.push(route.clone());
    }
    routes
}

/// Returns the sentence about a change that is not applied, for an option whose values it does not quote.
fn kept(what: &str) -> String {
    format!("{what} takes effect after a restart; until then the old value stays")
}

fn or_off(address: Option<impl Display>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, RawConfig, load};

    fn config(flags: &[(OptionKey, &str)]) -> Config {
        let mut raw = RawConfig::default();
        for (name, text) in flags {
            raw.set_flag(*name, [(*text).to_owned()]);
        }
        load(&raw, &Env::default()).unwrap()
    }

    fn reloaded(old: &[(OptionKey, &str)], new: &[(OptionKey, &str)]) -> (Config, Vec<String>) {
        merge_reload(&config(old), config(new))
    }

    #[test]
    fn changes_without_a_new_listener_are_applied() {
        let (config, needs_restart) = reloaded(
            &[(OptionKey::Route, "8081=https://a.example,credential=id")],
            &[
                (OptionKey::Route, "8081=https://b.example,audience=x"),
                (OptionKey::Route, "8081/v2=https://c.example,credential=id"),
                (OptionKey::Rule, "d.example=id"),
                (OptionKey::Unmatched, "deny"),
                (OptionKey::LogLevel, "debug"),
            ],
        );
        assert_eq!(needs_restart, Vec::<String>::new());
        assert_eq!(config.routes.len(), 2);
        assert_eq!(config.rules.len(), 1);
    }

    #[test]
    fn changed_listeners_and_workers_need_a_restart() {
        let (config, needs_restart) = reloaded(
            &[(OptionKey::Route, "8081=https://a.example")],
            &[
                (OptionKey::Route, "8082=https://a.example"),
                (OptionKey::Proxy, "off"),
                (OptionKey::Admin, "9999"),
                (OptionKey::Workers, "77"),
                (OptionKey::Intercept, "true"),
                (OptionKey::TokenTimeout, "1s"),
                (OptionKey::MaxConnections, "7"),
                (OptionKey::Sandbox, "off"),
            ],
        );
        assert_eq!(
            needs_restart,
            [
                "--proxy off takes effect after a restart; until then 127.0.0.1:3128 stays",
                "--admin 127.0.0.1:9999 takes effect after a restart; until then 127.0.0.1:9090 stays",
                "route 8082 to https://a.example/ takes effect after a restart, because it needs a new listener",
                "the removal of route 8081 to https://a.example/ takes effect after a restart; until then its listener serves",
                "a change of --intercept or --ca-dir takes effect after a restart; until then the old value stays",
                "--token-timeout takes effect after a restart; until then the old value stays",
                "--max-connections takes effect after a restart; until then the old value stays",
                "--workers takes effect after a restart; until then the old value stays",
                "--sandbox takes effect after a restart; until then the old value stays",
            ]
        );
        assert!(config.proxy.is_some());
        assert_eq!(&*config.routes[0].name, "8081");
        assert_ne!(config.workers, 77);
        assert_eq!(config.max_connections, 8192);
        assert_eq!(config.intercept, None);
    }

    #[test]
    fn a_reload_keeps_a_free_port() {
        let (config, needs_restart) = reloaded(
            &[
                (OptionKey::Route, "127.0.0.1:0=https://a.example"),
                (OptionKey::Route, "127.0.0.1:0/b=https://b.example"),
            ],
            &[(OptionKey::Route, "127.0.0.1:0/b=https://c.example")],
        );
        let upstreams: Vec<_> = config.routes.iter().map(Route::upstream_url).collect();
        assert_eq!(upstreams, ["https://c.example/", "https://a.example/"]);
        assert_eq!(needs_restart.len(), 1);
        assert!(
            needs_restart[0].contains("https://a.example"),
            "{needs_restart:?}"
        );
    }
}
