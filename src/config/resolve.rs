//! Resolves texts: applies defaults, parses values and finds options that contradict each other.

use std::path::PathBuf;

use http::HeaderValue;

use super::Config;
use super::diagnostic::{Diagnostic, DiagnosticId};
use super::env::Env;
use super::option_spec::{Context, DefaultValue, OptionSpec};
use super::options::OptionKey;
use super::raw::RawConfig;
use crate::explain::account_warning;
use crate::policy::DEFAULT_UNIVERSE;

mod ca_dir;
mod conflicts;
mod credentials;
mod intercept;
pub(super) mod metadata;
pub(super) mod roots;
mod route;
mod rule;
pub(super) mod upstream_proxy;

/// Resolves the whole configuration. The result is valid only if `diagnostics` stays empty.
pub(super) fn resolve(raw: &RawConfig, env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Config {
    let mut config = Config::default();
    let context = Context {
        env,
        random_auth: raw.random_auth.as_deref(),
    };
    for option in OptionKey::ALL {
        set(&mut config, *option, raw, &context, diagnostics);
    }
    resolve_upstream(&mut config, raw, env, diagnostics);
    let mut warnings = Vec::new();
    config.intercept = intercept::resolve(
        raw,
        config.intercept.is_some(),
        config.proxy.is_some(),
        &mut warnings,
        diagnostics,
    );
    // Errors of the variable are reported below, after those of the options.
    let universe = metadata::universe(env, &mut Vec::new());
    config.credentials = credentials::resolve(
        raw,
        env,
        (config.credentials.mode, config.credentials.trusted_urls),
        universe.as_deref().unwrap_or(DEFAULT_UNIVERSE),
        &mut warnings,
        diagnostics,
    );
    let file = config.credentials.file().map(|loaded| &loaded.file);
    let of_file = file.and_then(|file| HeaderValue::from_str(file.quota_project()?).ok());
    let universe = file.map(|file| file.universe().into()).or(universe);
    let universe = universe.as_deref().unwrap_or(DEFAULT_UNIVERSE);
    config.rules = rule::resolve(&raw.rules, universe, &mut warnings, diagnostics);
    let routes = route::resolve(&raw.routes, diagnostics);
    let proxy = config.proxy.as_ref().map(|proxy| proxy.listen);
    conflicts::check(
        raw,
        proxy,
        config.admin,
        &routes,
        config.allow_non_loopback,
        diagnostics,
    );
    if let Some(upstream_proxy) = &config.upstream.proxy {
        upstream_proxy::check_loop(upstream_proxy, &[proxy, config.admin], &routes, diagnostics);
    }
    config.metadata = metadata::server(env, diagnostics);
    if config.credentials.file().is_none() && !config.metadata.disabled {
        metadata::check_mtls_mode(env, diagnostics);
    }
    config.quota_project = metadata::quota_project(env, diagnostics).or(of_file);
    config.universe = metadata::universe(env, diagnostics);
    config.warnings = warnings;
    route::validate(&routes, universe, &mut config, diagnostics);
    config.routes = routes.into_iter().map(|(_, route)| route).collect();
    if let Some(file) = config.credentials.file() {
        config.universe = Some(file.file.universe().into());
    }
    credentials::check(&config, diagnostics);
    credentials::warn_of_services(&mut config);
    warn_of_accounts(&mut config);
    warn_of_plaintext(&mut config);
    config
}

/// Sets one option to its default, then to what the user wrote.
fn set(
    config: &mut Config,
    option: OptionKey,
    raw: &RawConfig,
    context: &Context<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let OptionSpec {
        setting, default, ..
    } = option.spec();
    match default {
        DefaultValue::Nothing => {}
        // A test checks that every default is a valid value.
        DefaultValue::Text(text) => (setting.set)(config, text, context).unwrap_or_default(),
        DefaultValue::Computed(_, set) => set(config, context),
    }
    if option.spec().depends_on_machine()
        && raw.value(option).is_some_and(|text| text.value != "auto")
    {
        config.explicit.0.insert(option);
    }
    for text in raw.value(option).into_iter().chain(raw.list(option)) {
        if let Err(message) = (setting.set)(config, &text.value, context) {
            diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message));
        }
    }
}

/// Reads certificates, and resolves the upstream proxy, which must not be the metadata server.
fn resolve_upstream(
    config: &mut Config,
    raw: &RawConfig,
    env: &Env,
    diagnostics: &mut Vec<Diagnostic>,
) {
    // Errors of the variable are reported later, after those of the options.
    let metadata = metadata::server(env, &mut Vec::new());
    let upstream = &mut config.upstream;
    upstream.extra_roots = roots::read(raw.list(OptionKey::UpstreamCa), diagnostics);
    upstream.system_ca_file = system_ca_file(env, diagnostics);
    upstream.no_proxy = upstream_proxy::no_proxy(raw, diagnostics);
    upstream.proxy = upstream_proxy::resolve(
        raw,
        upstream.no_proxy.clone(),
        (metadata.host, metadata.port),
        diagnostics,
    );
}

/// Warns of accounts of rules and routes that are probably wrong.
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

/// Warns of tokens in cleartext, which the upstream proxy can read.
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

/// Reads `SSL_CERT_FILE`. It must be readable, because without roots no upstream can be verified.
fn system_ca_file(env: &Env, diagnostics: &mut Vec<Diagnostic>) -> Option<PathBuf> {
    const VARIABLE: &str = "SSL_CERT_FILE";
    let file = metadata::variable(env, VARIABLE, diagnostics)?;
    if let Err(message) = roots::system(file) {
        let place = format!("environment {VARIABLE}");
        diagnostics.push(Diagnostic::new(DiagnosticId::InvalidFile, place, message));
    }
    Some(file.into())
}
