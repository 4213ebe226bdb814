//! Loads the configuration.

use super::diagnostic::Diagnostic;
use super::env::Env;
use super::raw::RawConfig;
use super::{Config, file, resolve};

/// Reads flags, environment and file, in this order of precedence, and resolves them. The file is read at every call,
/// so that a reload sees its changes.
///
/// # Errors
///
/// Returns every problem, each with its location.
///
/// # Examples
///
/// ```
/// use sidentity::config::{self, Env, OptionKey, RawConfig};
///
/// let mut flags = RawConfig::default();
/// flags.set_flag(OptionKey::Route, ["8081=https://billing.example.com,credential=id".to_owned()]);
/// let config = config::load(&flags, &Env::default()).expect("it is valid");
/// assert_eq!(config.routes.len(), 1);
///
/// flags.set_flag(OptionKey::Workers, ["0".to_owned()]);
/// let problems = config::load(&flags, &Env::default()).expect_err("0 workers serve nothing");
/// assert_eq!(problems.len(), 1);
/// assert_eq!(problems[0].place, "flag --workers");
/// ```
pub fn load(flags: &RawConfig, env: &Env) -> Result<Config, Vec<Diagnostic>> {
    load_over(flags, env, RawConfig::default())
}

/// Like [`load`], with other defaults.
///
/// # Errors
///
/// Fails like [`load`].
pub fn load_over(
    flags: &RawConfig,
    env: &Env,
    defaults: RawConfig,
) -> Result<Config, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut warnings = Vec::new();
    let variables = RawConfig::from_env(env, &mut warnings, &mut diagnostics);
    let mut raw = flags.clone().over(variables);
    // The path of the file may be a credential too, and an error would repeat it.
    let may_read = raw.misplaced_credentials().is_empty();
    if let Some(path) = raw.file.as_ref().filter(|_| may_read) {
        let file = file::read(path, &mut diagnostics);
        raw = raw.over(file);
    }
    raw = raw.over_defaults(defaults);
    let misplaced = raw.misplaced_credentials();
    if !misplaced.is_empty() {
        diagnostics.extend(misplaced);
        return Err(diagnostics);
    }
    let mut config = resolve::resolve(&raw, env, &mut diagnostics);
    config.warnings.extend(warnings);
    if diagnostics.is_empty() {
        Ok(config)
    } else {
        Err(diagnostics)
    }
}

/// Returns the configuration without any option. `env` identifies the platform: Cloud Run has its own defaults.
pub fn defaults(env: &Env) -> Config {
    resolve::resolve(&RawConfig::default(), &env.of_platform(), &mut Vec::new())
}
