//! Variables that Google's libraries also read, with the same meaning.

use std::sync::Arc;

use http::HeaderValue;

use super::super::MetadataServer;
use super::super::diagnostic::{Diagnostic, DiagnosticId, quote, quote_unless_secret};
use super::super::env::Env;
use crate::destination::{Host, Origin, Scheme};

/// Returns the variable's text. Reports a value that is not UTF-8.
pub(super) fn variable<'a>(
    env: &'a Env,
    name: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'a str> {
    env.text(name).unwrap_or_else(|diagnostic| {
        diagnostics.push(diagnostic);
        None
    })
}

/// The variables that name the metadata server, in the order of their precedence.
pub(crate) const METADATA_VARIABLES: [&str; 3] =
    [METADATA_HOST, "GCE_METADATA_ROOT", "GCE_METADATA_IP"];

/// The first of [`METADATA_VARIABLES`].
pub(super) const METADATA_HOST: &str = "GCE_METADATA_HOST";

/// The server that the first set variable of [`METADATA_VARIABLES`] names, otherwise the link-local address.
pub(super) fn server(env: &Env, diagnostics: &mut Vec<Diagnostic>) -> MetadataServer {
    let mut server = MetadataServer::default();
    for name in METADATA_VARIABLES {
        let Some(text) = variable(env, name, diagnostics) else {
            continue;
        };
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        match Origin::from_authority(Scheme::Http, authority) {
            Ok(origin) => (server.host, server.port) = (origin.host, origin.port),
            Err(_) => {
                let message = match quote_unless_secret(text) {
                    Some(value) => {
                        format!("{value} must be HOST or HOST:PORT, like 169.254.169.254")
                    }
                    None => "must be HOST or HOST:PORT, like 169.254.169.254".to_owned(),
                };
                let place = format!("environment {name}");
                diagnostics.push(Diagnostic::new(DiagnosticId::InvalidValue, place, message));
            }
        }
        break;
    }
    server.disabled = variable(env, "NO_GCE_CHECK", diagnostics)
        .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"));
    server
}

/// Checks `GCE_METADATA_MTLS_MODE`: the sidecar calls the metadata server over HTTP only.
pub(super) fn check_mtls_mode(env: &Env, diagnostics: &mut Vec<Diagnostic>) {
    const NAME: &str = "GCE_METADATA_MTLS_MODE";
    let Some(text) = variable(env, NAME, diagnostics) else {
        return;
    };
    let expected = match &*text.to_ascii_lowercase() {
        // Google's libraries use HTTP by default if there is no certificate.
        "default" | "none" => return,
        "strict" => {
            "is not supported yet, because the metadata server is called over HTTP only: write none or default"
        }
        _ => "must be none or default",
    };
    let message = format!("{} {expected}", quote(text));
    let place = format!("environment {NAME}");
    diagnostics.push(Diagnostic::new(DiagnosticId::InvalidValue, place, message));
}

/// `GOOGLE_CLOUD_QUOTA_PROJECT`.
pub(super) fn quota_project(env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Option<HeaderValue> {
    const NAME: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";
    let text = variable(env, NAME, diagnostics)?;
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    match HeaderValue::from_str(text) {
        Ok(project) if visible => Some(project),
        _ => {
            let message = format!("{} must be a project's id", quote(text));
            let place = format!("environment {NAME}");
            diagnostics.push(Diagnostic::new(DiagnosticId::InvalidValue, place, message));
            None
        }
    }
}

/// `GOOGLE_CLOUD_UNIVERSE_DOMAIN`, lower case.
pub(super) fn universe(env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Option<Arc<str>> {
    const NAME: &str = "GOOGLE_CLOUD_UNIVERSE_DOMAIN";
    let text = variable(env, NAME, diagnostics)?;
    // A single label would give a token to a whole top-level domain.
    match Host::parse(text) {
        Ok(Host::Name(name)) if name.contains('.') => Some(name),
        _ => {
            let message = format!("{} must be a domain, like googleapis.com", quote(text));
            let place = format!("environment {NAME}");
            diagnostics.push(Diagnostic::new(DiagnosticId::InvalidValue, place, message));
            None
        }
    }
}

// === impl MetadataServer ===

/// The link-local address of every metadata server.
impl Default for MetadataServer {
    fn default() -> Self {
        Self {
            host: Host::Ip(std::net::Ipv4Addr::new(169, 254, 169, 254).into()),
            port: 80,
            disabled: false,
        }
    }
}
