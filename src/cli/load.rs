//! Loads the configuration of a command.

use std::ffi::OsString;

use clap::{Args, FromArgMatches};

use super::exit::{Exit, complain};
use super::flags::Flags;
use super::usage;
use crate::config::{self, Config, Diagnostic, Env};

/// Loads the configuration of a command with the shared options. Writes its warnings to stderr.
pub(super) fn load(flags: Flags, env: &Env) -> Result<Config, Exit> {
    let config = config::load(&flags.into(), env).map_err(Exit::usage)?;
    for warning in &config.warnings {
        complain("warning", warning);
    }
    Ok(config)
}

/// Loads the configuration of these flags as `sidentity check` does, but writes nothing.
///
/// # Errors
///
/// The diagnostics that the command writes to stderr.
pub fn load_flags<F: Into<OsString> + Clone>(
    flags: impl IntoIterator<Item = F>,
    env: &Env,
) -> Result<Config, Vec<Diagnostic>> {
    let command = Flags::augment_args(clap::Command::new("check").no_binary_name(true));
    let flags = command
        .try_get_matches_from(flags)
        .and_then(|matches| Flags::from_arg_matches(&matches))
        .map_err(|error| vec![usage::diagnostic(&error)])?;
    config::load(&flags.into(), env)
}

/// Checks the names of the environment's variables, for a command that does not load the configuration.
pub(super) fn check_names(env: &Env) -> Result<(), Exit> {
    if let Some(warning) = config::unknown_variables(env).map_err(Exit::usage)? {
        complain("warning", &warning);
    }
    Ok(())
}
