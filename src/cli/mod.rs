//! The commands, one file each: arguments in, exit status out.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{self, Config, Env, Problem};

mod check;
mod options;
mod usage;

pub use options::Options;

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Every option can also be set by an environment variable, SIDENTITY_ and its name in capitals (--log-format:
SIDENTITY_LOG_FORMAT; values of a repeatable one separated by white space), and by a key of the --config file
(log_format). Flags win over environment over file; repeatable options add up.";

/// Gives an app's outgoing HTTP calls their Google Cloud identity.
#[derive(Debug, Parser)]
#[command(name = "sidentity", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate the configuration and print the effective one as YAML
    #[command(after_help = AFTER_HELP)]
    Check(Options),
}

/// Why a command ends otherwise than well.
#[derive(Debug)]
struct Exit {
    status: u8,
    problems: Vec<Problem>,
}

/// Runs the command that the arguments name; the first argument is the program's own name.
pub fn main(args: impl IntoIterator<Item = OsString>, env: &Env) -> ExitCode {
    let command = match CommandLine::try_parse_from(with_command(args)) {
        Ok(line) => line.command,
        Err(error) if is_wanted(error.kind()) => {
            // Nobody is left to tell when stdout is closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return Exit::usage(vec![usage::problem(&error)]).report(),
    };
    let done = match command {
        Command::Check(options) => check::run(options, env),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// Bare `sidentity`, and flags without a command, mean `run`.
fn with_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let bare = args.get(1).is_none_or(|first| {
        let first = first.to_string_lossy();
        first.starts_with('-') && !matches!(&*first, "-h" | "--help" | "-V" | "--version")
    });
    if bare {
        args.insert(1.min(args.len()), "run".into());
    }
    args
}

const fn is_wanted(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// The configuration of a command with the shared options; its warnings go to stderr.
fn load(options: Options, env: &Env) -> Result<Config, Exit> {
    let config = config::load(&options.into(), env).map_err(Exit::usage)?;
    for warning in &config.warnings {
        complain(&Problem::new("warning", warning));
    }
    Ok(config)
}

/// One line on stderr; where that is closed, nobody is left to tell.
fn complain(problem: &Problem) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "sidentity: {problem}");
}

// === impl Exit ===

impl Exit {
    fn usage(problems: Vec<Problem>) -> Self {
        Self {
            status: USAGE,
            problems,
        }
    }

    /// A failure at run time.
    fn failed(message: String) -> Self {
        Self {
            status: 1,
            problems: vec![Problem::new("error", message)],
        }
    }

    fn report(&self) -> ExitCode {
        self.problems.iter().for_each(complain);
        ExitCode::from(self.status)
    }
}
