//! `GET /status`: the data of the status page as JSON, also for scripts. It contains names and times, but no secrets:
//! no token or part of one, no query of a URL, no password.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use self::token::{TokenRow, purpose};
use super::serve::Admin;
use crate::config::{Config, Listen, PassOrDeny, Route};
use crate::diagnostics::{RecentError, Series};
use crate::explain::account_warning;
use crate::policy::{Credential, CredentialGrant, Decision, HeaderMode, PolicyEntry, Principal};
use crate::proxy::Ingress;
use crate::telemetry::{Counts, Redacted};
use crate::token::SlotState;

mod token;

/// The maximum number of listed tokens, those with errors first. A forward proxy may have a thousand.
const TOKENS: usize = 100;

/// The state of the sidecar.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: Option<&'static str>,
    /// `starting`, `serving` or `draining`.
    state: &'static str,
    since: Time,
    started: Time,
    now: Time,
    /// The text of the readiness probe.
    ready: bool,
    account: Option<String>,
    /// The source of the identity.
    credentials: String,
    /// The source with the account, the project and the chain of impersonation that all tokens have.
    identity: String,
    /// The chain of `--impersonate-service-account`.
    impersonates: Option<String>,
    project: Option<String>,
    universe: Option<String>,
    metadata_server: String,
    /// The upstream proxy; `None` if calls are sent directly.
    upstream_proxy: Option<String>,
    listeners: Vec<ListenerRow>,
    routes: Vec<RouteRow>,
    rules: Vec<PolicyEntry>,
    tokens: Vec<TokenRow>,
    /// The number of tokens, including those that are not listed.
    tokens_total: usize,
    /// Warnings about the current configuration.
    warnings: Vec<String>,
    /// Advice while no request was received.
    unused: Option<String>,
    history: Series,
    errors: Vec<RecentError>,
}

/// A listener.
#[derive(Debug, Serialize)]
struct ListenerRow {
    /// `proxy`, `route` or `admin`.
    kind: &'static str,
    /// `http://ADDRESS` or `unix:PATH`.
    address: String,
    /// `None` for the admin port, whose requests are not counted.
    #[serde(flatten)]
    totals: Option<Totals>,
    /// Its properties.
    notes: Vec<&'static str>,
}

/// The numbers since the start.
#[derive(Clone, Copy, Debug, Serialize)]
struct Totals {
    requests: u64,
    in_flight: u64,
    connections: u64,
    errors: u64,
    /// The median duration in seconds. Tunnels do not count.
    p50: Option<f64>,
    /// The 99th percentile in seconds.
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RouteRow {
    name: String,
    /// The URL that an app calls.
    address: String,
    upstream: String,
    /// `None` if the decision depends on the path.
    gets: Option<Gets>,
    /// The state of its token, if it gets one.
    token: Option<&'static str>,
    requests: u64,
    in_flight: u64,
    errors: u64,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The credential that calls get.
#[derive(Debug, Serialize)]
struct Gets {
    credential: Credential,
    audience: Option<String>,
    scopes: Vec<String>,
    account: Option<String>,
    /// The principal that obtains the token for that account.
    via: Option<String>,
    /// The header of the token, as written in options.
    header: Option<&'static str>,
    rule: String,
    /// The reason that there is no token.
    why: Option<String>,
}

/// A time in RFC 3339, UTC.
#[derive(Clone, Copy, Debug)]
struct Time(SystemTime);

// === impl Admin ===

impl Admin {
    /// Returns the current state.
    pub(super) fn status(&self) -> Status {
        self.fetch_facts_in_background();
        let facts = self.provider.facts();
        let (state, since) = self.lifecycle.state();
        let counts = self.metrics.counts();
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter_map(|ingress| self.route(ingress, &counts))
            .collect();
        let mut tokens = self.provider.tokens().statuses();
        let tokens_total = tokens.len();
        tokens.sort_by_key(|token| token.last_error.is_none());
        tokens.truncate(TOKENS);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("SIDENTITY_REVISION"),
            state,
            since: Time(since),
            started: Time(self.lifecycle.began()),
            now: Time(SystemTime::now()),
            ready: state == "serving" && routes.iter().all(RouteRow::is_ready),
            account: facts.email_if_known(&Principal::Attached).map(text),
            credentials: self.provider.policy().credential_name().to_string(),
            identity: self.identity(),
            impersonates: self.config.impersonate.as_ref().map(ToString::to_string),
            project: facts.project_id_if_known().map(text),
            universe: facts.universe_if_known().map(text),
            metadata_server: metadata_server(&self.config),
            upstream_proxy: self
                .config
                .upstream
                .proxy
                .as_ref()
                .map(|proxy| proxy.egress.summary()),
            listeners: listeners(&self.config, &counts),
            routes,
            rules: self.provider.policy().listing(&self.provider.universe()),
            tokens: tokens.into_iter().map(TokenRow::from).collect(),
            tokens_total,
            warnings: self.warnings(),
            unused: self.unused(),
            history: self.metrics.history().series(),
            errors: self.metrics.recent().errors(),
        }
    }

    fn identity(&self) -> String {
        let (policy, facts) = (self.provider.policy(), self.provider.facts());
        let account = facts.email_if_known(&Principal::Attached);
        let name = policy.credential_name().held_by(account);
        let project = facts.project_id_if_known();
        name.identity(policy.default_principal(), project.as_deref())
    }

    fn warnings(&self) -> Vec<String> {
        let email = self.provider.facts().email_if_known(&Principal::Attached);
        // The configuration's own warnings include one about the account of a file.
        let email = email.filter(|_| !self.provider.policy().credential_name().is_file());
        let of_account = email.and_then(|email| account_warning(&email));
        self.config
            .warnings
            .iter()
            .cloned()
            .chain(of_account)
            .collect()
    }

    /// Requests unknown facts in the background, as often as the backoff allows. The next status shows them.
    fn fetch_facts_in_background(&self) {
        let facts = self.provider.facts();
        if facts.email_if_known(&Principal::Attached).is_none()
            || facts.project_id_if_known().is_none()
        {
            let provider = self.provider.clone();
            tokio::spawn(async move { provider.fetch_facts().await });
        }
    }

    fn route(&self, ingress: &Ingress, counts: &BTreeMap<String, Counts>) -> Option<RouteRow> {
        let route = ingress.route()?;
        let resolved = route.decide(&self.provider);
        let slot = resolved
            .as_ref()
            .and_then(|resolved| resolved.slot.as_ref());
        let totals = totals(counts, &ingress.name);
        Some(RouteRow {
            name: ingress.name.to_string(),
            address: address(&route.route.listen) + &route.route.prefix,
            upstream: Redacted(&route.route.upstream).to_string(),
            token: slot.map(|slot| slot.status().state.as_str()),
            gets: resolved.map(|resolved| Gets::from(&*resolved.decision)),
            requests: totals.requests,
            in_flight: totals.in_flight,
            errors: totals.errors,
            p50: totals.p50,
            p99: totals.p99,
        })
    }
}

fn metadata_server(config: &Config) -> String {
    let server = &config.metadata;
    if server.disabled {
        return "not asked (NO_GCE_CHECK)".to_owned();
    }
    format!("{}:{}", server.host, server.port)
}

fn listeners(config: &Config, counts: &BTreeMap<String, Counts>) -> Vec<ListenerRow> {
    let proxy = config.proxy.as_ref().map(|proxy| {
        let mut notes = Vec::new();
        if proxy.auth.is_some() {
            notes.push("requires credentials");
        }
        if config.intercept.is_some() {
            notes.push("terminates TLS of CONNECT to destinations that get a token");
        } else {
            notes.push("CONNECT is a blind tunnel without tokens");
        }
        if config.unmatched == PassOrDeny::Deny {
            notes.push("denies destinations that no rule matches");
        }
        if config.metadata_access == PassOrDeny::Deny {
            notes.push("denies calls to the metadata server");
        }
        ListenerRow {
            kind: "proxy",
            address: format!("http://{}", proxy.listen),
            totals: Some(totals(counts, "proxy")),
            notes,
        }
    });
    let shared: BTreeSet<&Listen> = config.routes.iter().map(|route| &route.listen).collect();
    let routes = shared.into_iter().map(|listen| ListenerRow {
        kind: "route",
        address: address(listen),
        totals: Some(of_routes(&config.routes, listen, counts)),
        notes: Vec::new(),
    });
    let admin = config.admin.map(|address| ListenerRow {
        kind: "admin",
        address: format!("http://{address}"),
        totals: None,
        notes: Vec::new(),
    });
    proxy.into_iter().chain(routes).chain(admin).collect()
}

/// Returns the counts of a socket: those of its routes, and of the calls that no route served.
fn of_routes(routes: &[Route], listen: &Listen, counts: &BTreeMap<String, Counts>) -> Totals {
    let sharing = routes.iter().filter(|route| route.listen == *listen);
    let names: BTreeSet<&str> = sharing
        .flat_map(|route| [&*route.name, route.socket_name()])
        .collect();
    let mut sum = Counts::default();
    for counts in names.into_iter().filter_map(|name| counts.get(name)) {
        sum.add(counts);
    }
    Totals::from(&sum)
}

fn totals(counts: &BTreeMap<String, Counts>, name: &str) -> Totals {
    counts
        .get(name)
        .map_or_else(|| Totals::from(&Counts::default()), Totals::from)
}

fn address(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn text(text: impl AsRef<str>) -> String {
    text.as_ref().to_owned()
}

// === impl Totals ===

impl From<&Counts> for Totals {
    fn from(counts: &Counts) -> Self {
        Self {
            requests: counts.requests,
            in_flight: counts.in_flight,
            connections: counts.connections,
            errors: counts.errors,
            p50: counts.latencies.quantile(0.5),
            p99: counts.latencies.quantile(0.99),
        }
    }
}

// === impl RouteRow ===

impl RouteRow {
    fn is_ready(&self) -> bool {
        let unusable = [SlotState::Empty.as_str(), SlotState::Expired.as_str()];
        self.token.is_none_or(|token| !unusable.contains(&token))
    }
}

// === impl Gets ===

impl From<&Decision> for Gets {
    fn from(decision: &Decision) -> Self {
        let (key, why) = match &decision.grant {
            CredentialGrant::Token(key) => (Some(key), None),
            CredentialGrant::None(why) | CredentialGrant::Deny(why) => {
                (None, Some(why.to_string()))
            }
        };
        let (audience, scopes) = key.map(purpose).unwrap_or_default();
        Self {
            credential: decision.credential(),
            audience,
            scopes,
            account: key.and_then(|key| key.principal.account().map(text)),
            via: key.and_then(|key| key.principal.chain_clause()),
            header: key.map(|_| HeaderMode::as_str(decision.header)),
            rule: decision.rule.to_string(),
            why,
        }
    }
}

// === impl Time ===

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock before 1970 cannot be written.
        let time = self.0.max(SystemTime::UNIX_EPOCH);
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}
