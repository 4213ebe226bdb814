//! From texts to meanings: every text parsed, every default applied, every contradiction found.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::HeaderValue;

use super::diagnostic::{Diagnostic, quote};
use super::env::Env;
use super::options::OptionKey;
use super::raw::RawConfig;
use super::{
    ADMIN_PORT, Access, AccessLog, Config, HttpVersion, Log, LogFormat, LogLevel, Proxy, Upstream,
};
use crate::credentials::Mode;
use crate::destination::Host;
use crate::explain::account_warning;
use crate::policy::{DEFAULT_UNIVERSE, Impersonation, Placeholders};

pub(super) mod auth;
mod ca_dir;
mod conflicts;
pub(super) mod connect_to;
mod credentials;
pub(super) mod duration;
mod intercept;
pub(super) mod listen;
mod metadata;
pub(super) mod roots;
mod route;
mod rule;
mod size;
pub(super) mod upstream_proxy;

/// The whole of it. The result counts only where `diagnostics` stays empty.
pub(super) fn resolve(raw: &RawConfig, env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Config {
    let mut read = Reader { raw, diagnostics };
    let everywhere = read.one(OptionKey::AllowNonLoopback, false, switch);
    let proxy = read.one(
        OptionKey::Proxy,
        Some((SocketAddr::from((Ipv4Addr::LOCALHOST, 3128)), false)),
        or_off(listen::address_or_port),
    );
    let auth = read.one(
        OptionKey::ProxyAuth,
        None,
        or_off(|text| auth::expected(text, raw)),
    );
    let admin = read.one(
        OptionKey::Admin,
        Some((SocketAddr::from((admin_address(env), ADMIN_PORT)), false)),
        or_off(listen::address_or_port),
    );
    let mode = read.one(OptionKey::Credentials, Mode::Auto, credentials::mode);
    let trusted_urls = read.each(OptionKey::TrustCredentialUrl, credentials::trusted);
    let ca_files = raw.list(OptionKey::UpstreamCa);
    // What is wrong with it is told in its own place.
    let metadata = metadata::server(env, &mut Vec::new());
    let upstream = Upstream {
        connect_to: read.each(OptionKey::ConnectTo, connect_to::parse),
        extra_roots: roots::read(ca_files, read.diagnostics),
        ca_files: ca_files.iter().map(|file| (&file.value).into()).collect(),
        system_ca_file: system_ca_file(env, read.diagnostics),
        http: read.one(OptionKey::UpstreamHttp, HttpVersion::Auto, http_version),
        proxy: upstream_proxy::resolve(raw, (metadata.host, metadata.port), read.diagnostics),
        connect_timeout: read.one(
            OptionKey::ConnectTimeout,
            duration::secs(5),
            duration::positive,
        ),
        idle_timeout: read.one(OptionKey::IdleTimeout, duration::secs(90), duration::any),
        max_idle: read.one(OptionKey::MaxIdleConnections, 1024, |text| {
            number(text, 1_000_000)
        }),
    };
    let log = Log {
        format: read
            .one(OptionKey::LogFormat, None, log_format)
            .unwrap_or_else(|| {
                // Whoever collects the lines of a container wants them whole; people look at terminals.
                if std::io::stderr().is_terminal() {
                    LogFormat::Text
                } else {
                    LogFormat::Json
                }
            }),
        level: read.one(OptionKey::LogLevel, LogLevel::Info, log_level),
        access: read.one(OptionKey::AccessLog, AccessLog::Errors, access_log),
    };
    let discover = read
        .one(OptionKey::Discover, None, discover)
        .unwrap_or_else(|| env.is_set("K_SERVICE"));
    let mut warnings = Vec::new();
    let opens = read.one(OptionKey::Intercept, false, switch);
    let intercept =
        intercept::resolve(raw, opens, proxy.is_some(), &mut warnings, read.diagnostics);
    // What is wrong with it is told in its own place.
    let universe = metadata::universe(env, &mut Vec::new());
    let credentials = credentials::resolve(
        raw,
        env,
        (mode, trusted_urls),
        universe.as_deref().unwrap_or(DEFAULT_UNIVERSE),
        &mut warnings,
        read.diagnostics,
    );
    let file = credentials.file().map(|loaded| &loaded.file);
    let universe = file.map(|file| file.universe().into()).or(universe);
    let quota_project = file.and_then(|file| HeaderValue::from_str(file.quota_project()?).ok());
    let of_universe = universe.as_deref().unwrap_or(DEFAULT_UNIVERSE);
    let rules = rule::resolve(&raw.rules, of_universe, &mut warnings, read.diagnostics);
    let routes = route::resolve(&raw.routes, read.diagnostics);
    let (proxy_listen, admin_listen) = (proxy.map(|proxy| proxy.0), admin.map(|admin| admin.0));
    conflicts::check(
        raw,
        proxy_listen,
        admin_listen,
        &routes,
        everywhere,
        read.diagnostics,
    );
    if let Some(proxy) = &upstream.proxy {
        let own = [proxy_listen, admin_listen];
        upstream_proxy::check_loop(proxy, &own, &routes, read.diagnostics);
    }
    let mut config = Config {
        proxy: proxy.map(|(listen, on_ipv6)| Proxy {
            listen,
            on_ipv6,
            auth,
        }),
        intercept,
        routes: Vec::new(),
        rules,
        unmatched: read.one(OptionKey::Unmatched, Access::Pass, access),
        discover,
        metadata_access: read.one(OptionKey::MetadataAccess, Access::Pass, access),
        admin: admin_listen,
        admin_on_ipv6: admin.is_some_and(|(_, on_ipv6)| on_ipv6),
        quitquitquit: read.one(OptionKey::Quitquitquit, false, switch),
        allow_non_loopback: everywhere,
        allowed_hosts: unique(read.each(OptionKey::AllowedHost, host)),
        placeholders: read.each(OptionKey::Placeholder, placeholder),
        impersonate: read.one(OptionKey::ImpersonateServiceAccount, None, |text| {
            Impersonation::parse(text).map(Some)
        }),
        credentials,
        metadata: metadata::server(env, read.diagnostics),
        quota_project: metadata::quota_project(env, read.diagnostics).or(quota_project),
        universe: metadata::universe(env, read.diagnostics),
        upstream,
        response_timeout: read.one(OptionKey::ResponseTimeout, None, or_off(duration::positive)),
        token_timeout: read.one(
            OptionKey::TokenTimeout,
            duration::secs(8),
            duration::positive,
        ),
        drain_timeout: read.one(OptionKey::DrainTimeout, duration::secs(9), duration::any),
        max_connections: read.one(OptionKey::MaxConnections, 8192, |text| {
            number(text, 1_000_000)
        }),
        max_memory: read
            .one(OptionKey::MaxMemory, None, |text| {
                size::parse(text).map(Some)
            })
            .unwrap_or_else(size::default),
        workers: read.one(OptionKey::Workers, cores(), |text| number(text, 1_024)),
        sandbox: read.one(OptionKey::Sandbox, true, sandbox),
        log,
        warnings,
    };
    route::validate(&routes, &mut config, read.diagnostics);
    config.routes = routes.into_iter().map(|(_, route)| route).collect();
    if let Some(file) = config.credentials.file() {
        config.universe = Some(file.file.universe().into());
    }
    credentials::check(&config, read.diagnostics);
    warn_of_accounts(&mut config);
    warn_of_plaintext(&mut config);
    config
}

/// Accounts that a rule or a route names.
fn warn_of_accounts(config: &mut Config) {
    let rules = config
        .rules
        .iter()
        .map(|rule| (rule.name.to_string(), &rule.options));
    let routes = config.routes.iter();
    let routes = routes.map(|route| (format!("route {}", route.name), &route.options));
    let warnings = rules.chain(routes).filter_map(|(name, options)| {
        let named = options
            .impersonate
            .as_deref()
            .or(options.account.as_deref());
        Some(format!("{name}: {}", account_warning(named?)?))
    });
    let global = config.impersonate.iter().filter_map(|chain| {
        let warning = account_warning(chain.target())?;
        Some(format!(
            "--{}: {warning}",
            OptionKey::ImpersonateServiceAccount.as_str()
        ))
    });
    let found: Vec<_> = global.chain(warnings).collect();
    config.warnings.extend(found);
}

/// Tokens in cleartext that a proxy on the way can read.
fn warn_of_plaintext(config: &mut Config) {
    let Some(proxy) = &config.upstream.proxy else {
        return;
    };
    let rules = config.rules.iter().map(|rule| &rule.options);
    let routes = config.routes.iter().map(|route| &route.options);
    if rules.chain(routes).any(|options| options.plaintext) {
        let egress = &proxy.egress;
        config.warnings.push(format!(
            "plaintext=allow: the proxy {egress} can read the tokens that go through it in cleartext"
        ));
    }
}

/// Takes options out of the raw configuration, and keeps what is wrong with them.
struct Reader<'a> {
    raw: &'a RawConfig,
    diagnostics: &'a mut Vec<Diagnostic>,
}

// === impl Reader ===

impl Reader<'_> {
    /// An option that is there once, or its default.
    fn one<T>(
        &mut self,
        name: OptionKey,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.raw.value(name) else {
            return default;
        };
        parse(&text.value).unwrap_or_else(|message| {
            self.diagnostics.push(text.diagnostic(message));
            default
        })
    }

    /// A list.
    fn each<T>(&mut self, name: OptionKey, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for text in self.raw.list(name) {
            match parse(&text.value) {
                Ok(value) => values.push(value),
                Err(message) => self.diagnostics.push(text.diagnostic(message)),
            }
        }
        values
    }
}

/// Probers and scrapers come from outside the container on Cloud Run, and there the port is nobody else's.
fn admin_address(env: &Env) -> IpAddr {
    let cloud_run = ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"]
        .iter()
        .any(|variable| env.is_set(variable));
    if cloud_run {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

fn or_off<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| match text {
        "off" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("{} must be one of {}", quote(text), words.join(", "))
        })
}

/// Every spelling that YAML, shells and people have.
fn switch(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(format!("{} must be true or false", quote(text))),
    }
}

/// `auto` is none.
fn discover(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        text => switch(text)
            .map(Some)
            .map_err(|_| format!("{} must be one of auto, on, off", quote(text))),
    }
}

fn access(text: &str) -> Result<Access, String> {
    word(text, &[("pass", Access::Pass), ("deny", Access::Deny)])
}

pub(super) fn http_version(text: &str) -> Result<HttpVersion, String> {
    word(
        text,
        &[
            ("auto", HttpVersion::Auto),
            ("1", HttpVersion::Http1),
            ("2", HttpVersion::Http2),
        ],
    )
}

/// `SSL_CERT_FILE`, which must be readable: nothing could be sent without it.
fn system_ca_file(env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Option<PathBuf> {
    const VARIABLE: &str = "SSL_CERT_FILE";
    let file = metadata::variable(env, VARIABLE, diagnostics)?;
    if let Err(message) = roots::system(file) {
        diagnostics.push(Diagnostic::new(format!("environment {VARIABLE}"), message));
    }
    Some(file.into())
}

fn log_format(text: &str) -> Result<Option<LogFormat>, String> {
    word(
        text,
        &[
            ("auto", None),
            ("json", Some(LogFormat::Json)),
            ("text", Some(LogFormat::Text)),
        ],
    )
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    word(
        text,
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    )
}

fn access_log(text: &str) -> Result<AccessLog, String> {
    word(
        text,
        &[
            ("off", AccessLog::Off),
            ("errors", AccessLog::Errors),
            ("all", AccessLog::All),
        ],
    )
}

fn sandbox(text: &str) -> Result<bool, String> {
    word(text, &[("auto", true), ("off", false)])
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("{} must be a number from 1 to {most}", quote(text)))
}

/// The standard library asks the cgroup, so a container with one CPU of a large machine counts one.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn host(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|_| {
        format!(
            "{} must be a host name or address without a port",
            quote(text)
        )
    })
}

fn placeholder(text: &str) -> Result<String, String> {
    Placeholders::parse(text).map_err(|why| format!("{} {why}", quote(text)))
}

fn unique(hosts: Vec<Host>) -> Vec<Host> {
    let mut seen = BTreeSet::new();
    hosts
        .into_iter()
        .filter(|host| seen.insert(host.to_string()))
        .collect()
}
