//! Loads the configuration.

use super::env::Env;
use super::problem::Problem;
use super::raw::RawConfig;
use super::{Config, file, resolve};

/// Reads flags, environment and file, in this order of precedence, and resolves them. The file is read at every call, so
/// that a reload sees its changes.
///
/// # Errors
///
/// Every problem at once.
pub fn load(flags: &RawConfig, env: &Env) -> Result<Config, Vec<Problem>> {
    load_over(flags, env, RawConfig::default())
}

/// As [`load`], with other defaults.
///
/// # Errors
///
/// As [`load`].
pub fn load_over(
    flags: &RawConfig,
    env: &Env,
    defaults: RawConfig,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let variables = RawConfig::from_env(env, &mut warnings, &mut problems);
    let mut raw = flags.clone().over(variables);
    if let Some(path) = &raw.file {
        let file = file::read(path, &mut problems);
        raw = raw.over(file);
    }
    raw = raw.over_defaults(defaults);
    let mut config = resolve::resolve(&raw, env, &mut problems);
    config.warnings.extend(warnings);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

/// Returns the configuration without any option. `env` tells the platform: Cloud Run has defaults of its own.
pub fn defaults(env: &Env) -> Config {
    resolve::resolve(&RawConfig::default(), &env.of_platform(), &mut Vec::new())
}
