//! `sidentity check`: validates the configuration and prints its effective values.

use super::exit::{Exit, complain, write_output};
use super::flags::Flags;
use super::load::load;
use crate::config::{self, Env, Yaml};

/// Validate the configuration and print what differs from the defaults as YAML
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    flags: Flags,
    /// Print every option, also those with their default value
    #[arg(long)]
    all: bool,
}

/// Validates the configuration and prints it as YAML that `--config` accepts.
pub(super) fn run(args: CheckArgs, env: &Env) -> Result<(), Exit> {
    let config = load(args.flags, env)?;
    if let Some(warning) = config.no_credentials() {
        complain("warning", &warning);
    }
    let defaults = config::defaults(env);
    let yaml = if args.all {
        Yaml::all(&config)
    } else {
        Yaml::differing(&config, &defaults)
    };
    write_output("the configuration", yaml)
}
