//! Explains service names: the URL of a name, and the reason that a host that looks like a service name is not one.

use super::Case;
use super::how::{EntryPoints, in_http, with_query};
use crate::destination::{Destination, Scheme};
use crate::policy::{Policy, ServiceLocation, ServiceName};

/// Explains how to call a service by its name.
pub(super) fn how(case: &Case<'_>, asked: &Destination, entry_points: &EntryPoints) -> String {
    let port = entry_points.free_port();
    let host = &asked.origin.host;
    let name = match ServiceName::of(asked) {
        Some(Ok(service)) => service.to_string(),
        _ => host.to_string(),
    };
    let route = format!(
        "--route {port}=run://{name}, and call {}",
        with_query(format!("http://localhost:{port}{}", asked.path()), asked)
    );
    match &entry_points.proxy {
        Some(proxy) => format!(
            "Call {} with HTTP_PROXY=http://{proxy}: the sidecar sends it over TLS to {}. Write http://: no \
             certificate can be issued for {host}, so https:// and every other CONNECT to it is rejected. Or add a \
             route: {route}.",
            in_http(asked),
            case.sent_to(),
        ),
        None => format!("Add a route: {route}."),
    }
}

/// Adds notes on where the service is, or on a host that could be a service name.
pub(super) fn notes(notes: &mut Vec<String>, case: &Case<'_>, policy: &Policy) {
    if case.named.is_some() {
        let host = case.destination.origin.host.to_string();
        notes.push(if host.contains("PROJECTNUMBER") || host.contains("REGION") {
            "a service name: PROJECTNUMBER and REGION come from the metadata server at the first call".to_owned()
        } else {
            "a service name: project number and region come from the metadata server".to_owned()
        });
        return;
    }
    if case.route.is_some() {
        return;
    }
    let Some(Ok(service)) = ServiceName::of(&case.destination) else {
        other_port(notes, case, policy);
        return;
    };
    let Ok(origin) = service.at(&ServiceLocation::default()) else {
        return;
    };
    if policy.settings.discover && policy.has_rule_for(&case.destination) {
        notes.push(format!(
            "not a service name (--discover), because your rule matches {} itself; without the rule: {origin}",
            case.destination.origin.host
        ));
    } else if !policy.settings.discover && !policy.is_metadata(&case.destination.origin) {
        notes.push(format!(
            "with --discover on, it is the name of a Cloud Run service: {origin}"
        ));
    }
}

fn other_port(notes: &mut Vec<String>, case: &Case<'_>, policy: &Policy) {
    let origin = &case.destination.origin;
    if !policy.settings.discover || origin.is_default_port() {
        return;
    }
    let mut usual = case.destination.clone();
    usual.origin.scheme = Scheme::Http;
    usual.origin.port = Scheme::Http.default_port();
    if let Some(Ok(service)) = policy.service(&usual) {
        notes.push(format!(
            "not a service name (--discover) with port {}: write http://{service}/",
            origin.port
        ));
    }
}
