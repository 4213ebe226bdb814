//! `--credentials` and `--trust-credential-url`.

use std::path::Path;
use std::sync::Arc;

use super::super::Config;
use super::super::diagnostic::{Diagnostic, DiagnosticId};
use super::super::env::Env;
use super::super::options::OptionKey;
use super::super::raw::RawConfig;
use super::metadata::{METADATA_HOST, variable};
use crate::credentials::{
    Base, CredentialFile, Credentials, Environment, Found, FoundBy, LoadedFile, Mode, ReadContext,
    TrustedUrl, search,
};
use crate::explain::account_warning;
use crate::policy::{DEFAULT_UNIVERSE, RuleOptions};

/// Variables of Cloud Run. There is a metadata server, so it is not probed.
const PLATFORM: [&str; 3] = ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"];

/// Finds the credential file and reads it. `universe` is the universe of a file without one.
pub(super) fn resolve(
    raw: &RawConfig,
    env: &Env,
    (mode, trusted_urls): (Mode, Vec<TrustedUrl>),
    universe: &str,
    warnings: &mut Vec<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Credentials {
    let environment = Environment {
        variable: variable(env, "GOOGLE_APPLICATION_CREDENTIALS", diagnostics),
        gcloud_folder: variable(env, "CLOUDSDK_CONFIG", diagnostics),
        home: variable(env, "HOME", diagnostics),
        has_metadata_server: has_metadata_server(env),
    };
    let mut credentials = Credentials {
        beside_metadata_server: environment.has_metadata_server && mode != Mode::Adc,
        mode,
        trusted_urls,
        ..Credentials::default()
    };
    let cleartext = credentials
        .trusted_urls
        .iter()
        .filter(|url| url.is_cleartext());
    warnings.extend(cleartext.map(|url| {
        format!(
            "--trust-credential-url {url}: everyone on the network between can read and change what is sent there and what it \
             returns, such as the credential and its tokens: write https"
        )
    }));
    match search(&credentials.mode, &environment) {
        Found::File(path, found_by) => {
            let context = ReadContext {
                universe,
                trusted: &credentials.trusted_urls,
                variable: &|name| env.text(name).ok().flatten().map(str::to_owned),
            };
            match CredentialFile::read(&path, &context) {
                Ok((file, found)) => {
                    warnings.extend(found);
                    let loaded = LoadedFile {
                        path,
                        found_by,
                        file,
                    };
                    warnings.extend(self::warnings(&loaded, env));
                    credentials.base = Base::File(Arc::new(loaded));
                }
                Err(error) => {
                    let message = match is_misspelt(&path, found_by) {
                        true => format!("{error}: write auto, metadata, adc or the path of a file"),
                        false => error.to_string(),
                    };
                    diagnostics.push(Diagnostic::new(DiagnosticId::InvalidCredentialFile, place(raw, found_by), message));
                }
            }
        }
        Found::Metadata {
            searched,
            looked_at,
        } => {
            credentials.base = Base::Metadata {
                searched: searched.map(Arc::from),
            };
            credentials.looked_at.extend(looked_at);
        }
        Found::Nothing { searched } => diagnostics.push(Diagnostic::new(
 DiagnosticId::NoCredentialFile,
            place(raw, FoundBy::Option),
            format!("no credential file was found: {searched}. Run `gcloud auth application-default login`"),
        )),
    }
    credentials
}

/// Checks that the credential can provide the tokens that rules and routes ask for.
pub(super) fn check(config: &Config, diagnostics: &mut Vec<Diagnostic>) {
    check_signed(config, diagnostics);
    let Some(file) = config.credentials.file() else {
        return;
    };
    let base = config.credentials.base_credential();
    for rule in &config.rules {
        let options = &rule.options;
        let impersonated = config.impersonate.is_some() || options.impersonation().is_some();
        // An account of the metadata server is reported below.
        if other_account(options).is_none()
            && let Some(why) = base.unobtainable_by_rule(rule, impersonated)
        {
            let message = format!("this token cannot be obtained from {file}: {why}");
            diagnostics.push(Diagnostic::new(
                DiagnosticId::TokenUnobtainable,
                &*rule.name,
                message,
            ));
        }
    }
    let rules = config
        .rules
        .iter()
        .map(|rule| (rule.name.to_string(), &rule.options));
    let routes = config
        .routes
        .iter()
        .map(|route| (format!("--route {}", route.name), &route.options));
    for (name, options) in rules.chain(routes) {
        if let Some(account) = other_account(options) {
            let message = format!(
                "account={account} names an account of the metadata server, but tokens come from {file}: write \
                 impersonate={account}"
            );
            diagnostics.push(Diagnostic::new(
                DiagnosticId::TokenUnobtainable,
                name,
                message,
            ));
        }
    }
}

/// Warns of names of services, whose URLs contain facts that only a metadata server has.
pub(super) fn warn_of_services(config: &mut Config) {
    let Some(file) = config.credentials.file() else {
        return;
    };
    if config.credentials.beside_metadata_server {
        return;
    }
    let routes = config.routes.iter().filter_map(|route| {
        let service = route.service.as_ref()?;
        Some(format!(
            "--route {}: run://{service} needs the project's number from a metadata server, but tokens come from {file}, and \
             no variable names a metadata server: write the service's https:// URL",
            route.name
        ))
    });
    let warnings: Vec<String> = routes.collect();
    config.warnings.extend(warnings);
}

/// Checks rules and routes for which an account signs: the credential must have an account, and delegation is limited
/// to one universe.
fn check_signed(config: &Config, diagnostics: &mut Vec<Diagnostic>) {
    let file = config.credentials.file();
    let universe = file.map(|loaded| loaded.file.universe());
    let universe = universe.or(config.universe.as_deref());
    let universe = universe.unwrap_or(DEFAULT_UNIVERSE);
    let unsigned = file.filter(|loaded| !loaded.file.is_of_account());
    let rules = config.rules.iter();
    let rules = rules.map(|rule| (rule.name.to_string(), &rule.options));
    let routes = config.routes.iter();
    let routes = routes.map(|route| (format!("--route {}", route.name), &route.options));
    for (name, options) in rules.chain(routes) {
        let signed = match &options.subject {
            Some(subject) => format!("subject={subject}"),
            None if options.jwt => "token=jwt".to_owned(),
            None => continue,
        };
        if options.subject.is_some() && universe != DEFAULT_UNIVERSE {
            let message = format!(
                "{signed}: domain-wide delegation exists only in the universe {DEFAULT_UNIVERSE}, but the credential \
                 is of {universe}"
            );
            diagnostics.push(Diagnostic::new(
                DiagnosticId::TokenUnobtainable,
                name,
                message,
            ));
        } else if let Some(file) = unsigned
            && other_account(options).is_none()
            && config.impersonate.is_none()
            && options.impersonate.is_none()
        {
            let message = format!(
                "{signed} must be signed by a service account, but {file} is not one: add impersonate=ACCOUNT, or \
                 --impersonate-service-account{}",
                if options.jwt {
                    " (IAP accepts no token of a person)"
                } else {
                    ""
                }
            );
            diagnostics.push(Diagnostic::new(
                DiagnosticId::TokenUnobtainable,
                name,
                message,
            ));
        }
    }
}

/// Returns the account of the metadata server that a route or rule names, unless it is the attached one.
fn other_account(options: &RuleOptions) -> Option<&str> {
    options.account.as_deref().filter(|name| *name != "default")
}

/// Returns whether a variable shows that there is a metadata server.
fn has_metadata_server(env: &Env) -> bool {
    let mut names = PLATFORM.iter().chain([&METADATA_HOST]);
    names.any(|name| env.is_set(name))
}

/// Returns warnings about a credential that is valid but looks wrong.
fn warnings(loaded: &LoadedFile, env: &Env) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_key = match &loaded.file {
        CredentialFile::Impersonated(file) => {
            matches!(*file.source, CredentialFile::ServiceAccount(_))
        }
        file => matches!(file, CredentialFile::ServiceAccount(_)),
    };
    let on_platform = PLATFORM.iter().any(|name| env.is_set(name));
    if is_key && on_platform {
        warnings.push(format!(
            "tokens come from {loaded}, although there is a metadata server here: attach the service account instead, \
             which needs no key"
        ));
    } else if is_key && has_metadata_server(env) {
        warnings.push(format!(
            "tokens come from {loaded}, although {METADATA_HOST} names a metadata server. If that is Google Cloud's, attach the \
             service account, which needs no key; if it is another, such as an emulator, --credentials metadata uses it"
        ));
    }
    if let CredentialFile::AuthorizedUser(user) = &loaded.file {
        if user.quota_project.is_none() && !env.is_set("GOOGLE_CLOUD_QUOTA_PROJECT") {
            warnings.push(format!(
                "{loaded} has no quota project, without which many Google APIs answer 403: run `gcloud auth application-default \
                 set-quota-project PROJECT`, or set GOOGLE_CLOUD_QUOTA_PROJECT"
            ));
        }
        if !user.is_of_gcloud() {
            warnings.push(format!(
                "{loaded} is of an OAuth client other than gcloud's: Cloud Run and functions refuse its ID tokens; log in with `gcloud auth \
                 application-default login`, or impersonate a service account"
            ));
        }
    }
    warnings.extend(unconfirmed_universe(loaded, env));
    warnings.extend(loaded.file.account().and_then(account_warning));
    warnings
}

/// Returns a warning if only the file names its universe. Whoever writes the file then decides which hosts get the
/// credential and the tokens.
fn unconfirmed_universe(loaded: &LoadedFile, env: &Env) -> Option<String> {
    let universe = loaded.file.universe();
    // Errors of the variable are reported elsewhere.
    let confirmed = super::metadata::universe(env, &mut Vec::new());
    if universe == DEFAULT_UNIVERSE || confirmed.as_deref() == Some(universe) {
        return None;
    }
    Some(format!(
        "{} names the universe {universe}, and GOOGLE_CLOUD_UNIVERSE_DOMAIN does not: its token endpoints under {universe} \
         get the credential, and every host under {universe} gets tokens. If this is your universe, set \
         GOOGLE_CLOUD_UNIVERSE_DOMAIN={universe}; otherwise do not use the file",
        loaded.name()
    ))
}

/// Returns whether the text is probably a misspelt word (`--credentials metdata`): it is not a path, and the file does
/// not exist.
fn is_misspelt(path: &Path, found_by: FoundBy) -> bool {
    found_by == FoundBy::Option
        && !path.exists()
        && path.components().count() == 1
        && path.extension().is_none()
}

/// Returns the location where the file was named.
fn place(raw: &RawConfig, found_by: FoundBy) -> String {
    match found_by {
        FoundBy::Option => match raw.value(OptionKey::Credentials) {
            Some(text) => text.place.to_string(),
            None => "--credentials".to_owned(),
        },
        FoundBy::Variable => format!("environment {found_by}"),
        FoundBy::Gcloud => found_by.to_string(),
    }
}
