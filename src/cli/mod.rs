//! The commands, one file each: they parse arguments and return an exit status.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::check::CheckArgs;
use self::completions::CompletionsArgs;
use self::demo::DemoArgs;
use self::exec::ExecArgs;
use self::exit::{Exit, written};
use self::explain::ExplainArgs;
use self::load::check_names;
use self::metadata_server::MetadataServerArgs;
use self::token::TokenArgs;
use crate::children;
use crate::config::Env;

mod check;
mod completions;
mod demo;
mod detached_thread;
mod exec;
mod exit;
mod explain;
mod flags;
mod health;
mod interruption;
mod load;
mod metadata_server;
mod run;
mod runtime;
mod token;
mod usage;

pub use flags::Flags;
pub use load::load_flags;

/// The end of a command's help: two examples.
macro_rules! examples {
    ($first:literal, $second:literal) => {
        concat!("Examples:\n  sidentity ", $first, "\n  sidentity ", $second)
    };
}

/// The same for a command that has the shared options.
macro_rules! with_options {
    ($first:literal, $second:literal) => {
        concat!(
            "Every option is also an environment variable, SIDENTITY_ and its name in capitals (SIDENTITY_LOG_FORMAT;\n\
             values of a repeatable one are separated by white space), and a key of the --config file (log_format).\n\
             Flags take precedence over the environment, the environment over the file. Repeatable options are combined.\n\n",
            examples!($first, $second)
        )
    };
}

/// How long a command waits for the account's name. A machine without a metadata server must not delay the command.
const ACCOUNT_TIMEOUT: Duration = Duration::from_millis(500);

/// Gives an app's outgoing HTTP calls their Google Cloud identity.
#[derive(Debug, Parser)]
#[command(
    name = "sidentity",
    version,
    disable_help_subcommand = true,
    override_usage = "sidentity [COMMAND] [OPTIONS]",
    after_help = examples!(
        "--route 8081=https://billing-424242.us-central1.run.app",
        "exec curl https://storage.googleapis.com/storage/v1/b"
    )
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the sidecar (also without a command)
    #[command(after_help = with_options!(
        "run --route 8081=https://billing-424242.us-central1.run.app",
        "run --config sidentity.yaml --log-format json"
    ))]
    Run(Flags),
    /// Run a command with the sidecar around it: its HTTP and HTTPS calls pass through
    #[command(after_help = with_options!(
        "exec curl https://storage.googleapis.com/storage/v1/b",
        "exec --rule '*.internal.example=id' python app.py"
    ))]
    Exec(ExecArgs),
    /// Show which credential a call to URL gets, and how to make the call; fetches no token
    #[command(after_help = with_options!(
        "explain https://billing-424242.us-central1.run.app/",
        "explain --json --rule iap.example.com=access iap.example.com"
    ))]
    Explain(ExplainArgs),
    /// Print the token that a call to URL would carry
    #[command(after_help = with_options!(
        "token https://billing-424242.us-central1.run.app/",
        "token --rule iap.example.com=id https://iap.example.com/"
    ))]
    Token(TokenArgs),
    /// Validate the configuration and print what differs from the defaults as YAML
    #[command(after_help = with_options!(
        "check --config sidentity.yaml",
        "check --all --rule '*.internal.example=id'"
    ))]
    Check(CheckArgs),
    /// Probe a running sidecar; the status is 0 or 1
    #[command(after_help = examples!("health", "health --ready --admin 127.0.0.1:9091"))]
    Health(health::Health),
    /// Wait until a running sidecar is ready; the status is 0 or 1
    #[command(after_help = examples!("wait", "wait --max 10s --admin 127.0.0.1:9091"))]
    Wait(health::Wait),
    /// Emulate the metadata server, for development and CI
    #[command(after_help = examples!(
        "metadata-server",
        "metadata-server --listen 127.0.0.1:0 --project-id example-project --lifetime 5m"
    ))]
    MetadataServer(MetadataServerArgs),
    /// Show on loopback what the sidecar does
    #[command(after_help = examples!("demo", "demo --once"))]
    Demo(DemoArgs),
    /// Print a script that completes commands, options and values in a shell
    #[command(after_help = examples!(
        "completions bash | sudo tee /etc/bash_completion.d/sidentity",
        "completions zsh | sudo tee /usr/local/share/zsh/site-functions/_sidentity"
    ))]
    Completions(CompletionsArgs),
}

/// Returns the description of the command line, for man pages and documents.
///
/// # Examples
///
/// ```
/// let command = sidentity::cli::command();
/// assert!(command.get_subcommands().any(|command| command.get_name() == "exec"));
/// ```
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Runs the command that the arguments name; the first argument is the program's own name.
///
/// Returns 64 if the command line or the configuration is wrong, 1 for other failures, and for `exec` the status of its
/// command.
///
/// # Examples
///
/// ```
/// use std::process::ExitCode;
/// use sidentity::{cli, config::Env};
///
/// let args = ["sidentity", "--version"].map(Into::into);
/// assert_eq!(cli::main(args, &Env::default()), ExitCode::SUCCESS);
/// ```
pub fn main(args: impl IntoIterator<Item = OsString>, env: &Env) -> ExitCode {
    let command = match CommandLine::try_parse_from(with_command(args)) {
        Ok(line) => line.command,
        Err(error) if is_wanted(error.kind()) => {
            return written("the text", error.print())
                .map_or_else(|exit| exit.report(), |()| ExitCode::SUCCESS);
        }
        Err(error) => return Exit::usage(vec![usage::diagnostic(&error)]).report(),
    };
    let done = match command {
        Command::Run(flags) => run::run(flags, env),
        Command::Exec(args) => exec::run(args, env),
        Command::Explain(args) => explain::run(args, env),
        Command::Token(args) => token::run(args, env),
        Command::Check(args) => check::run(args, env),
        Command::Health(args) => check_names(env).and_then(|()| health::health(&args, env)),
        Command::Wait(args) => check_names(env).and_then(|()| health::wait(&args, env)),
        Command::MetadataServer(args) => {
            check_names(env).and_then(|()| metadata_server::run(args, env))
        }
        Command::Demo(args) => check_names(env).and_then(|()| demo::run(&args)),
        Command::Completions(args) => completions::run(&args, CommandLine::command()),
    };
    // A program that prints a subject token must not outlive the command.
    children::kill_all();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// Makes `run` the default command, and `help COMMAND` the same as `COMMAND --help`.
fn with_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == "help") {
        args.remove(1);
        args.truncate(2);
        args.push("--help".into());
    }
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
