//! The log lines of a start and of a reload: listeners, identities, and which calls get which token.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use super::log_entry::LogEntry;
use crate::error::SourceKind;
use crate::policy::{CredentialGrant, Decision, Policy, PolicyEntry, Principal, TokenKind};

/// The largest number of rules that a line names.
const RULES: usize = 10;

/// The identities of one configuration, and which calls get which token.
#[derive(Debug)]
pub(crate) struct ConfigSummary {
    /// The kind of the base credential.
    pub(crate) source: SourceKind,
    /// Sentences: the credential with its chain, then the rules with another identity.
    pub(crate) identities: Vec<String>,
    /// The credentials of calls through the forward proxy. `None` without a forward proxy.
    pub(crate) proxy: Option<String>,
    /// The upstream proxy, if there is one.
    pub(crate) egress: Option<String>,
    pub(crate) routes: Vec<RouteSummary>,
}

/// A route, and which credential its calls get.
#[derive(Debug)]
pub(crate) struct RouteSummary {
    /// The configured name.
    pub(crate) name: Arc<str>,
    /// The address that an app calls.
    pub(crate) address: String,
    /// The upstream's URL.
    pub(crate) upstream: String,
    /// The credential of its calls.
    pub(crate) gets: String,
}

/// The addresses of the listeners that are not routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundListeners {
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    /// Whether `--intercept` is on.
    pub(crate) intercepts: bool,
}

// === impl ConfigSummary ===

impl ConfigSummary {
    /// Logs the identities as far as the configuration determines them, and which calls get which token. The account of
    /// the metadata server is logged once it is known.
    pub(crate) fn log(&self) {
        for identity in &self.identities {
            tracing::info!(source = self.source.as_str(), "{identity}");
        }
        if let Some(get) = &self.proxy {
            tracing::info!("calls through the forward proxy get: {get}");
        }
        if let Some(egress) = &self.egress {
            tracing::info!("upstreams are reached through the proxy {egress}");
        }
        for route in &self.routes {
            tracing::info!(
                listener = &*route.name,
                address = route.address,
                "route {} to {}: {}",
                route.address,
                route.upstream,
                route.gets
            );
        }
    }
}

// === impl BoundListeners ===

impl BoundListeners {
    /// Logs the addresses of all listeners, with the summary of the configuration.
    pub(crate) fn log(&self, summary: &ConfigSummary) {
        if let Some(address) = self.proxy {
            tracing::info!(listener = "proxy", %address, "forward proxy: HTTP_PROXY=http://{address}");
        }
        summary.log();
        if summary.proxy.is_some() && !self.intercepts {
            tracing::info!(
                "CONNECT is a blind tunnel, so https:// through HTTPS_PROXY gets no token: let the app call http:// \
                 (the sidecar adds TLS) or a route, or set --intercept"
            );
        }
        if let Some(address) = self.admin {
            tracing::info!(listener = "admin", %address, "admin: http://{address}/");
        }
    }

    /// Returns one line for the service manager.
    pub(crate) fn status(&self, routes: usize) -> String {
        let proxy = self.proxy.map(|address| format!("proxy {address}"));
        let admin = self.admin.map(|address| format!("admin {address}"));
        let listens: Vec<String> = [proxy, admin].into_iter().flatten().collect();
        format!("serving: {}; routes: {routes}", listens.join(", "))
    }
}

/// Returns a sentence on the base credential, and one for each rule with another identity. `found_by` is the setting
/// that named the credential file. `is_certain`: there is a base credential; otherwise the result of the search is
/// logged once it is known.
pub(crate) fn identities(
    policy: &Policy,
    found_by: Option<&dyn Display>,
    is_certain: bool,
) -> Vec<String> {
    let name = policy.credential_name();
    let identity = name.identity(policy.default_principal(), None);
    let found_by = match found_by {
        Some(found_by) => format!(", named by {found_by}"),
        None => String::new(),
    };
    let first = format!("tokens come from {identity}{found_by}");
    let holder = name.holder_or_default();
    let others = policy.other_identities().map(|(rule, principal)| {
        format!(
            "tokens of {rule} are those of {}",
            principal.name_of(holder)
        )
    });
    is_certain
        .then_some(first)
        .into_iter()
        .chain(others)
        .collect()
}

/// Returns the credentials of calls through the forward proxy.
pub(crate) fn proxy_calls(policy: &Policy, universe: &str) -> String {
    let listing = policy.listing(universe);
    let (table, rules): (Vec<_>, Vec<_>) = listing.iter().partition(|line| line.built_in);
    let more = match rules.len().saturating_sub(RULES) {
        0 => None,
        more => Some(format!("{more} more rules")),
    };
    let words = |line: &&PolicyEntry| format!("{} {}", line.pattern, line.credential.as_str());
    let rules = rules.iter().take(RULES).map(words).chain(more);
    // Omits the metadata server and loopback, which get no token.
    let table = table.iter().skip(1).map(words);
    rules.chain(table).collect::<Vec<_>>().join(", ")
}

/// Returns the credential of calls with this decision. `holder` names the base credential.
pub(crate) fn gets(decision: &Decision, holder: &str) -> String {
    match &decision.grant {
        CredentialGrant::Token(key) => {
            let rule = &decision.rule;
            let whose = match &key.principal {
                Principal::Attached => String::new(),
                other => format!(" of {}", other.name_of(holder)),
            };
            match &key.kind {
                TokenKind::Access { .. } => format!("an access token{whose} ({rule})"),
                TokenKind::Id { audience } => {
                    format!("an ID token for {audience}{whose} ({rule})")
                }
                TokenKind::Jwt { audience } => {
                    format!("a signed JWT for {audience}{whose} ({rule})")
                }
            }
        }
        CredentialGrant::None(why) => format!("no token: {why}"),
        CredentialGrant::Deny(why) => format!("denied: {why}"),
    }
}

/// Returns the credential of a route's calls if the decision is not known yet. `is_service`: its upstream is the name
/// of a service.
pub(crate) const fn gets_later(is_service: bool) -> &'static str {
    if is_service {
        "a token that depends on the URL from the metadata server"
    } else {
        "a token that depends on the path of each call"
    }
}

/// Logs that `--intercept` covers only part of the Google APIs.
pub(crate) fn log_unknown_universe() {
    tracing::warn!(
        help = LogEntry::UnknownUniverse.page(),
        "the universe domain is not known yet: --intercept terminates TLS of Google APIs only for googleapis.com"
    );
}

/// Logs which files make an app trust the CA of `--intercept`.
pub(crate) fn log_trust_files(folder: impl Display) {
    tracing::info!(
        "TLS of CONNECT is terminated for destinations that get a token: the app must trust {folder}/bundle.pem (SSL_CERT_FILE), \
         {folder}/ca.pem (NODE_EXTRA_CA_CERTS) or {folder}/truststore.p12 (Java)"
    );
}
