//! Conflicts of listeners, and listeners that other machines can reach.

use std::net::SocketAddr;

use super::super::diagnostic::{Diagnostic, DiagnosticId};
use super::super::options::OptionKey;
use super::super::raw::RawConfig;
use super::super::value::listen::is_loopback;
use super::super::{Listen, Route};

const OPEN: &str = "anyone who can reach it would get this service's identity: listen on 127.0.0.1, or set \
                    --allow-non-loopback";

/// Compares every listener with those before it: admin, proxy, routes.
pub(super) fn check(
    raw: &RawConfig,
    proxy: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    routes: &[(String, Route)],
    everywhere: bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let place = |name: OptionKey| {
        raw.value(name).map_or_else(
            || format!("flag --{}", name.as_str()),
            |text| text.place.to_string(),
        )
    };
    if proxy.is_none() && routes.is_empty() && raw.routes.is_empty() {
        let message = "the proxy is off and there are no routes: add a --route";
        diagnostics.push(Diagnostic::new(
            DiagnosticId::NothingToDo,
            place(OptionKey::Proxy),
            message,
        ));
    }
    if let Some(proxy) = proxy {
        if !everywhere && !is_loopback(&proxy) {
            diagnostics.push(Diagnostic::new(
                DiagnosticId::ListenerNotLoopback,
                place(OptionKey::Proxy),
                format!("{proxy}: {OPEN}"),
            ));
        }
        if let Some(admin) = admin
            && Listen::Tcp(proxy).overlaps(&Listen::Tcp(admin))
        {
            // The message names the address that the user wrote, because the other is a default.
            let name = match raw.value(OptionKey::Proxy) {
                Some(_) => OptionKey::Proxy,
                None => OptionKey::Admin,
            };
            let message = format!("the proxy ({proxy}) and admin ({admin}) need different ports");
            diagnostics.push(Diagnostic::new(
                DiagnosticId::ListenerConflict,
                place(name),
                message,
            ));
        }
    }
    for (index, (place, route)) in routes.iter().enumerate() {
        let listen = &route.listen;
        if !everywhere && !listen.is_local() {
            diagnostics.push(Diagnostic::new(
                DiagnosticId::ListenerNotLoopback,
                place,
                format!("{}: {OPEN}", route.name),
            ));
        }
        let own = [(proxy, "the forward proxy"), (admin, "admin")];
        for (taken, whose) in own {
            if taken.is_some_and(|taken| listen.overlaps(&Listen::Tcp(taken))) {
                let message = format!("{} is the address of {whose}: use another port", route.name);
                diagnostics.push(Diagnostic::new(
                    DiagnosticId::ListenerConflict,
                    place,
                    message,
                ));
            }
        }
        let message = routes.iter().take(index).find_map(|(_, before)| {
            if before.listen == *listen {
                let name = &route.name;
                if before.prefix == route.prefix {
                    Some(format!(
                        "{name} is already a route: use another port or prefix"
                    ))
                } else if let (Some(one), Some(other)) = (before.mode, route.mode)
                    && one != other
                {
                    let before = &before.name;
                    Some(format!(
                        "{before} and {name} share a socket: give both the same mode"
                    ))
                } else {
                    None
                }
            } else {
                before
                    .listen
                    .overlaps(listen)
                    .then(|| format!("{} and {} need different ports", before.name, route.name))
            }
        });
        if let Some(message) = message {
            diagnostics.push(Diagnostic::new(
                DiagnosticId::ListenerConflict,
                place,
                message,
            ));
        }
    }
}
