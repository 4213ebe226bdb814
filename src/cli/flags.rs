//! The options that `run`, `exec`, `explain`, `token` and `check` share, generated from the table in the configuration.
//!
//! clap only collects texts here. The configuration parses them, as it parses those of environment and file.

use std::fmt;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{OptionKey, RawConfig, Repeat};

const CONFIG: &str = "config";

/// The flags as written.
#[derive(Clone, Default)]
pub struct Flags(RawConfig);

// === impl Flags ===

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .help("YAML file with any of these options");
        let mut options = OptionKey::ALL.to_vec();
        options.sort_by_key(|option| option.spec().heading);
        command.arg(config).args(options.into_iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut raw = RawConfig::default();
        raw.set_file(matches.get_one(CONFIG).cloned());
        for option in OptionKey::ALL {
            let texts = matches.get_many(option.as_str()).into_iter().flatten();
            raw.set_flag(*option, texts.cloned());
        }
        Ok(Self(raw))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl From<Flags> for RawConfig {
    fn from(flags: Flags) -> Self {
        flags.0
    }
}

/// Shows no value, because one is a password.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").finish_non_exhaustive()
    }
}

fn argument(option: OptionKey) -> Arg {
    let spec = option.spec();
    let argument = Arg::new(spec.name)
        .long(spec.name)
        .value_name(spec.value)
        .help_heading(spec.heading.as_str())
        .help(spec.help_text());
    let argument = match spec.repeat {
        Repeat::Once => argument.action(ArgAction::Set),
        Repeat::List | Repeat::Entries => argument.action(ArgAction::Append),
    };
    if spec.is_switch() {
        argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        argument
    }
}
