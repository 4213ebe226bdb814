//! Loads the configuration of a command.

use super::exit::{Exit, complain};
use super::options::Options;
use crate::config::{self, Config, Diagnostic, Env};

/// Loads the configuration of a command with the shared options. Writes its warnings to stderr.
pub(super) fn load(options: Options, env: &Env) -> Result<Config, Exit> {
    let config = config::load(&options.into(), env).map_err(Exit::usage)?;
    for warning in &config.warnings {
        complain(&Diagnostic::new("warning", warning));
    }
    Ok(config)
}

/// Checks the names of the environment's variables, for a command that does not load the configuration.
pub(super) fn check_names(env: &Env) -> Result<(), Exit> {
    if let Some(warning) = config::unknown_variables(env).map_err(Exit::usage)? {
        complain(&Diagnostic::new("warning", warning));
    }
    Ok(())
}
