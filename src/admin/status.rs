//! `GET /status`: everything that the status page shows, as JSON, for it and for scripts. Names and times, no secrets: no
//! token or part of one, no query of a URL, no password.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use self::token::{TokenLine, purpose};
use super::serve::Admin;
use crate::config::{Access, Config, Listen, Route};
use crate::diagnostics::{Series, Trouble};
use crate::explain::account_warning;
use crate::policy::{Credential, CredentialGrant, Decision, HeaderMode, PolicyEntry, Principal};
use crate::proxy::Ingress;
use crate::telemetry::{Counts, Redacted};
use crate::token::SlotState;

mod token;

/// Tokens that are listed; a forward proxy may have a thousand, and those in trouble come first.
const TOKENS: usize = 100;

/// How the sidecar stands.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: Option<&'static str>,
    /// `starting`, `serving` or `draining`.
    state: &'static str,
    since: Time,
    started: Time,
    now: Time,
    /// What the readiness probe would say.
    ready: bool,
    account: Option<String>,
    /// Where the identity comes from.
    credentials: String,
    /// The chain of `--impersonate-service-account`.
    impersonates: Option<String>,
    project: Option<String>,
    universe: Option<String>,
    metadata_server: String,
    /// How calls leave; none where that is directly.
    upstream_proxy: Option<String>,
    listeners: Vec<Place>,
    routes: Vec<RouteLine>,
    rules: Vec<PolicyEntry>,
    tokens: Vec<TokenLine>,
    /// How many there are, listed or not.
    tokens_total: usize,
    /// What is allowed and looks wrong in the configuration that is in force.
    warnings: Vec<String>,
    /// What to look at while no request has come in at all.
    unused: Option<String>,
    history: Series,
    errors: Vec<Trouble>,
}

/// An address that is listened on.
#[derive(Debug, Serialize)]
struct Place {
    /// `proxy`, `route` or `admin`.
    kind: &'static str,
    /// `http://ADDRESS` or `unix:PATH`.
    address: String,
    /// Of the admin port nothing is counted.
    #[serde(flatten)]
    counted: Option<Counted>,
    /// What is particular about it.
    notes: Vec<&'static str>,
}

/// Since the start.
#[derive(Clone, Copy, Debug, Serialize)]
struct Counted {
    requests: u64,
    in_flight: u64,
    connections: u64,
    errors: u64,
    /// Seconds that half of them took at most; tunnels do not count.
    p50: Option<f64>,
    /// The same for 99 of 100.
    p99: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RouteLine {
    name: String,
    /// As an app calls it.
    address: String,
    upstream: String,
    /// None where the path of each call decides.
    gets: Option<Gets>,
    /// How its token stands, where it gets one.
    token: Option<&'static str>,
    requests: u64,
    in_flight: u64,
    errors: u64,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// What calls get.
#[derive(Debug, Serialize)]
struct Gets {
    credential: Credential,
    audience: Option<String>,
    scopes: Vec<String>,
    account: Option<String>,
    /// Who obtains the token for that account.
    via: Option<String>,
    /// Which header carries it, as written in options.
    header: Option<&'static str>,
    rule: String,
    /// Why there is none.
    why: Option<String>,
}

/// RFC 3339, UTC.
#[derive(Clone, Copy, Debug)]
struct Time(SystemTime);

// === impl Admin ===

impl Admin {
    /// How everything stands now.
    pub(super) fn status(&self) -> Status {
        self.learn();
        let instance = self.decider.instance();
        let (state, since) = self.lifecycle.state();
        let counts = self.metrics.counts();
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter_map(|ingress| self.route(ingress, &counts))
            .collect();
        let mut tokens = self.decider.tokens().statuses();
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
            ready: state == "serving" && routes.iter().all(RouteLine::is_ready),
            account: instance.email_if_known(&Principal::Attached).map(text),
            credentials: self.decider.policy().credential_name().to_string(),
            impersonates: self.config.impersonate.as_ref().map(ToString::to_string),
            project: instance.project_id_if_known().map(text),
            universe: instance.universe_if_known().map(text),
            metadata_server: metadata_server(&self.config),
            upstream_proxy: self
                .config
                .upstream
                .proxy
                .as_ref()
                .map(|proxy| proxy.egress.summary()),
            listeners: listeners(&self.config, &counts),
            routes,
            rules: self.decider.policy().listing(&self.decider.universe()),
            tokens: tokens.into_iter().map(TokenLine::from).collect(),
            tokens_total,
            warnings: self.warnings(),
            unused: self.unused(),
            history: self.metrics.history().series(),
            errors: self.metrics.recent().troubles(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let email = self.decider.instance().email_if_known(&Principal::Attached);
        // The configuration's own warnings have one about the account of a file.
        let email = email.filter(|_| !self.decider.policy().credential_name().is_file());
        let of_account = email.and_then(|email| account_warning(&email));
        self.config
            .warnings
            .iter()
            .cloned()
            .chain(of_account)
            .collect()
    }

    /// What nobody has asked the metadata server for yet is asked for behind the answer, as often as its backoff allows:
    /// the next look shows it.
    fn learn(&self) {
        let instance = self.decider.instance();
        if instance.email_if_known(&Principal::Attached).is_none()
            || instance.project_id_if_known().is_none()
        {
            let decider = self.decider.clone();
            tokio::spawn(async move { decider.learn().await });
        }
    }

    fn route(&self, ingress: &Ingress, counts: &BTreeMap<String, Counts>) -> Option<RouteLine> {
        let route = ingress.route()?;
        let resolved = route.resolve(&self.decider);
        let slot = resolved
            .as_ref()
            .and_then(|resolved| resolved.slot.as_ref());
        let counted = counted(counts, &ingress.name);
        Some(RouteLine {
            name: ingress.name.to_string(),
            address: address(&route.route.listen) + &route.route.prefix,
            upstream: Redacted(&route.route.upstream).to_string(),
            token: slot.map(|slot| slot.status().state.as_str()),
            gets: resolved.map(|resolved| Gets::from(&*resolved.decision)),
            requests: counted.requests,
            in_flight: counted.in_flight,
            errors: counted.errors,
            p50: counted.p50,
            p99: counted.p99,
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

fn listeners(config: &Config, counts: &BTreeMap<String, Counts>) -> Vec<Place> {
    let proxy = config.proxy.as_ref().map(|proxy| {
        let mut notes = Vec::new();
        if proxy.auth.is_some() {
            notes.push("asks for credentials");
        }
        if config.intercept.is_some() {
            notes.push("opens TLS of CONNECT where a token is due");
        } else {
            notes.push("CONNECT is a blind tunnel without tokens");
        }
        if config.unmatched == Access::Deny {
            notes.push("refuses what no rule names");
        }
        if config.metadata_access == Access::Deny {
            notes.push("refuses calls to the metadata server");
        }
        Place {
            kind: "proxy",
            address: format!("http://{}", proxy.listen),
            counted: Some(counted(counts, "proxy")),
            notes,
        }
    });
    let shared: BTreeSet<&Listen> = config.routes.iter().map(|route| &route.listen).collect();
    let routes = shared.into_iter().map(|listen| Place {
        kind: "route",
        address: address(listen),
        counted: Some(of_routes(&config.routes, listen, counts)),
        notes: Vec::new(),
    });
    let admin = config.admin.map(|address| Place {
        kind: "admin",
        address: format!("http://{address}"),
        counted: None,
        notes: Vec::new(),
    });
    proxy.into_iter().chain(routes).chain(admin).collect()
}

/// A socket's counts: those of its routes, and of the calls that no route took.
fn of_routes(routes: &[Route], listen: &Listen, counts: &BTreeMap<String, Counts>) -> Counted {
    let sharing = routes.iter().filter(|route| route.listen == *listen);
    let names: BTreeSet<&str> = sharing
        .flat_map(|route| [&*route.name, route.socket_name()])
        .collect();
    let mut sum = Counts::default();
    for counts in names.into_iter().filter_map(|name| counts.get(name)) {
        sum.add(counts);
    }
    Counted::from(&sum)
}

fn counted(counts: &BTreeMap<String, Counts>, name: &str) -> Counted {
    counts
        .get(name)
        .map_or_else(|| Counted::from(&Counts::default()), Counted::from)
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

// === impl Counted ===

impl From<&Counts> for Counted {
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

// === impl RouteLine ===

impl RouteLine {
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
            via: key.and_then(|key| key.principal.via()),
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
