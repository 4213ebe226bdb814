//! Merges a new configuration with the running one at a reload.

use std::fmt::Display;

use super::sockets::RouteListener;
use crate::config::{Config, Route};

/// Returns the configuration to apply, and a sentence for each change that needs a restart. Such changes are not applied.
pub(super) fn merge_reload(old: &Config, new: Config) -> (Config, Vec<String>) {
    let mut waiting = Vec::new();
    let mut config = new;
    let listens = |config: &Config| config.proxy.as_ref().map(|proxy| proxy.listen);
    let on_ipv6 = |config: &Config| config.proxy.as_ref().is_some_and(|proxy| proxy.on_ipv6);
    if (listens(old), on_ipv6(old)) != (listens(&config), on_ipv6(&config)) {
        waiting.push(format!(
            "--proxy {}, which was {}",
            or_off(listens(&config)),
            or_off(listens(old))
        ));
        config.proxy.clone_from(&old.proxy);
    }
    // Destructured in full, so that a new field must be handled here.
    let Config {
        admin,
        admin_on_ipv6,
        intercept,
        max_connections,
        metadata,
        routes: old_routes,
        sandbox,
        token_timeout,
        workers,
        // Applied at once.
        allow_non_loopback: _,
        allowed_hosts: _,
        credentials: _,
        discover: _,
        drain_timeout: _,
        impersonate: _,
        log: _,
        max_memory: _,
        metadata_access: _,
        placeholders: _,
        proxy: _,
        quitquitquit: _,
        quota_project: _,
        response_timeout: _,
        rules: _,
        universe: _,
        unmatched: _,
        upstream: _,
        warnings: _,
    } = old;
    if (*admin, *admin_on_ipv6) != (config.admin, config.admin_on_ipv6) {
        waiting.push(format!(
            "--admin {}, which was {}",
            or_off(config.admin),
            or_off(*admin)
        ));
        config.admin = *admin;
        config.admin_on_ipv6 = *admin_on_ipv6;
    }
    config.routes = routes(old_routes, &config.routes, &mut waiting);
    let mut keep = |name: &str, changed: bool| {
        if changed {
            waiting.push(name.to_owned());
        }
    };
    keep("--intercept and --ca-dir", *intercept != config.intercept);
    keep("--token-timeout", *token_timeout != config.token_timeout);
    keep(
        "--max-connections",
        *max_connections != config.max_connections,
    );
    keep("--workers", *workers != config.workers);
    keep("--sandbox", *sandbox != config.sandbox);
    keep("where tokens come from", *metadata != config.metadata);
    let config = Config {
        intercept: intercept.clone(),
        max_connections: *max_connections,
        metadata: metadata.clone(),
        sandbox: *sandbox,
        token_timeout: *token_timeout,
        workers: *workers,
        ..config
    };
    (config, waiting)
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

/// Returns whether a token may come from an endpoint. Otherwise the metadata server's tokens are kept, because it may be down.
fn uses_endpoints(config: &Config) -> bool {
    let rules = config.rules.iter().map(|rule| &rule.options);
    let routes = config.routes.iter().map(|route| &route.options);
    config.credentials.file().is_some()
        || config.impersonate.is_some()
        || rules.chain(routes).any(|options| {
            options.impersonate.is_some() || options.subject.is_some() || options.jwt
        })
}

/// Returns the new routes on existing listeners, and the old routes of listeners that the new configuration does not name.
fn routes(old: &[Route], new: &[Route], waiting: &mut Vec<String>) -> Vec<Route> {
    let on = |routes: &[Route], route: &Route| {
        let asked = RouteListener::by(route);
        routes.iter().any(|other| RouteListener::by(other) == asked)
    };
    let (mut routes, added) = new
        .iter()
        .cloned()
        .partition::<Vec<_>, _>(|route| on(old, route));
    for route in added {
        waiting.push(format!(
            "route {} to {}: a new listener",
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
            waiting.push(format!(
                "route {}: mode={now:04o}, which was {before:04o}",
                route.name
            ));
        }
    }
    for route in old.iter().filter(|route| !on(new, route)) {
        waiting.push(format!(
            "route {} to {}: its listener was removed, and serves until then",
            route.name,
            route.upstream_url()
        ));
        routes.push(route.clone());
    }
    routes
}

fn or_off(address: Option<impl Display>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, OptionKey, RawConfig, load};

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
        let (config, waiting) = reloaded(
            &[(OptionKey::Route, "8081=https://a.example,credential=id")],
            &[
                (OptionKey::Route, "8081=https://b.example,audience=x"),
                (OptionKey::Route, "8081/v2=https://c.example,credential=id"),
                (OptionKey::Rule, "d.example=id"),
                (OptionKey::Unmatched, "deny"),
                (OptionKey::LogLevel, "debug"),
            ],
        );
        assert_eq!(waiting, Vec::<String>::new());
        assert_eq!(config.routes.len(), 2);
        assert_eq!(config.rules.len(), 1);
    }

    #[test]
    fn changes_of_listeners_and_workers_need_a_restart() {
        let (config, waiting) = reloaded(
            &[(OptionKey::Route, "8081=https://a.example")],
            &[
                (OptionKey::Route, "8082=https://a.example"),
                (OptionKey::Proxy, "off"),
                (OptionKey::Admin, "9999"),
                (OptionKey::Workers, "77"),
            ],
        );
        assert_eq!(
            waiting,
            [
                "--proxy off, which was 127.0.0.1:3128",
                "--admin 127.0.0.1:9999, which was 127.0.0.1:9090",
                "route 8082 to https://a.example/: a new listener",
                "route 8081 to https://a.example/: its listener was removed, and serves until then",
                "--workers",
            ]
        );
        assert!(config.proxy.is_some());
        assert_eq!(&*config.routes[0].name, "8081");
        assert_ne!(config.workers, 77);
    }

    #[test]
    fn a_reload_keeps_a_free_port() {
        let (config, waiting) = reloaded(
            &[
                (OptionKey::Route, "127.0.0.1:0=https://a.example"),
                (OptionKey::Route, "127.0.0.1:0/b=https://b.example"),
            ],
            &[(OptionKey::Route, "127.0.0.1:0/b=https://c.example")],
        );
        let upstreams: Vec<_> = config.routes.iter().map(Route::upstream_url).collect();
        assert_eq!(upstreams, ["https://c.example/", "https://a.example/"]);
        assert_eq!(waiting.len(), 1);
        assert!(waiting[0].contains("https://a.example"), "{waiting:?}");
    }
}
