//! `sidentity run`: serves until a signal ends the process.

mod allocator;
mod config_reader;
mod sandbox;
mod signals;
mod supervisor;

use std::convert::Infallible;
use std::io;

use tokio_util::sync::CancellationToken;

use self::config_reader::ConfigReader;
use self::sandbox::Sandbox;
use self::signals::{ControlSignals, ShutdownSignals, SignalAction};
use self::supervisor::Supervisor;
use super::exit::Exit;
use super::flags::Flags;
use super::runtime::runtime;
use crate::app::{App, Control, StartError};
use crate::config::{self, Config, Diagnostic, DiagnosticId, Env, LogFormat, RawConfig};
use crate::diagnostics::LogEntry;
use crate::server::raise_descriptor_limit;
use crate::telemetry;

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once with 128 and its number. SIGHUP reloads
/// the file.
pub(super) fn run(flags: Flags, env: &Env) -> Result<(), Exit> {
    let flags = RawConfig::from(flags);
    let config = config::load(&flags, env).map_err(Exit::usage)?;
    telemetry::init(&config.log);
    let format = config.log.format;
    let ended = start(config, flags, env);
    match format {
        // A reader of the log expects an object in each line.
        LogFormat::Json => ended.map_err(Exit::into_log),
        LogFormat::Text => ended,
    }
}

fn start(config: Config, flags: RawConfig, env: &Env) -> Result<(), Exit> {
    warn(&config);
    let file = flags.file_path(env);
    // The sandbox must start before the first thread.
    let sandbox = Sandbox::enter(&config, file.as_deref());
    sandbox.announce();
    allocator::return_free_memory();
    raise_descriptor_limit();
    let runtime = runtime(config.workers)?;
    let ended = runtime.block_on(serve(config, flags, env, sandbox));
    // A second signal or the end of the drain has cancelled the remaining tasks.
    runtime.shutdown();
    ended
}

async fn serve(config: Config, flags: RawConfig, env: &Env, sandbox: Sandbox) -> Result<(), Exit> {
    let (shutdown, control) = (ShutdownSignals::new()?, ControlSignals::new()?);
    let app = App::build(config).await?;
    let (listeners, summary) = (app.listeners(), app.control().summary());
    listeners.log(&summary);
    let signal_loop = SignalLoop {
        status: listeners.status(summary.routes.len()),
        supervisor: Supervisor::of(env),
        control: app.control(),
        env: env.clone(),
        flags,
        sandbox,
    };
    signal_loop.supervisor.ready(&signal_loop.status);
    let stop = CancellationToken::new();
    tokio::select! {
        () = app.run(stop.clone().cancelled_owned()) => Ok(()),
        signal = shutdown.cancel_then_wait(stop) => {
            tracing::warn!(help = LogEntry::DrainCutOff.page(), "a second signal ended the drain: requests in flight are cut off");
            Err(Exit::ended_by(signal.as_raw()))
        }
        never = signal_loop.run(control) => match never {},
    }
}

/// Logs settings that are valid but look wrong.
fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(help = LogEntry::ConfigurationWarning.page(), "{warning}");
    }
}

/// Handles signals while the sidecar serves.
struct SignalLoop {
    control: Control,
    supervisor: Supervisor,
    status: String,
    flags: RawConfig,
    env: Env,
    sandbox: Sandbox,
}

impl From<StartError> for Exit {
    fn from(error: StartError) -> Self {
        Self::failed(error.to_string())
    }
}

// === impl SignalLoop ===

impl SignalLoop {
    async fn run(mut self, mut signals: ControlSignals) -> Infallible {
        let mut draining = false;
        let mut reader = ConfigReader::default();
        loop {
            tokio::select! {
                () = self.supervisor.watchdog_due() => self.supervisor.alive(),
                () = self.control.drain_begun(), if !draining => {
                    draining = true;
                    self.supervisor.stopping();
                }
                loaded = reader.done() => {
                    if self.control.is_draining() {
                        tracing::warn!(help = LogEntry::ReloadIgnored.page(), "SIGHUP ignored: shutdown is in progress");
                        continue;
                    }
                    self.reload(loaded);
                    if !reader.is_on() {
                        self.supervisor.ready(&self.status);
                    }
                }
                action = signals.next() => match action {
                    SignalAction::Reload if self.control.is_draining() => {
                        tracing::warn!(help = LogEntry::ReloadIgnored.page(), "SIGHUP ignored: shutdown is in progress");
                    }
                    SignalAction::Reload => {
                        if reader.is_on() {
                            tracing::info!("SIGHUP: the files are still being read; they are read again after that");
                        } else {
                            self.supervisor.reloading();
                        }
                        reader.start(self.flags.clone(), self.env.clone());
                    }
                    SignalAction::Resumed => {
                        tracing::info!("SIGCONT: idle connections to upstreams are closed, expired tokens are \
                                        fetched again");
                        self.control.resumed();
                    }
                },
            }
        }
    }

    /// Applies what was read. Flags and environment stay.
    fn reload(&self, loaded: io::Result<Result<Config, Vec<Diagnostic>>>) {
        let config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(diagnostics)) => return self.not_reloaded(&diagnostics),
            Err(error) => {
                return self.not_reloaded(&[Diagnostic::new(
                    DiagnosticId::InvalidFile,
                    "reload",
                    error.to_string(),
                )]);
            }
        };
        if let Some(program) = config
            .credentials
            .program()
            .filter(|_| self.sandbox.is_on())
        {
            let message = format!(
                "the credential file names the executable {program}, which the sandbox does not permit to run: restart, or set \
                 --sandbox off"
            );
            return self.not_reloaded(&[denied_by_sandbox(message)]);
        }
        if let Some(file) = config
            .credentials
            .token_file()
            .filter(|file| !self.sandbox.lets_read(file))
        {
            let file = file.display();
            let message = format!(
                "the credential file names the file {file}, which the sandbox does not permit to read: Permission \
                 denied"
            );
            return self.not_reloaded(&[denied_by_sandbox(message)]);
        }
        let rules = config.rules.len();
        warn(&config);
        match self.control.reload(config) {
            Ok(needs_restart) => {
                for change in needs_restart {
                    tracing::warn!(help = LogEntry::NeedsRestart.page(), "{change}");
                }
                let summary = self.control.summary();
                summary.log();
                let routes = summary.routes.len();
                tracing::info!("reloaded: {routes} routes and {rules} rules are active");
            }
            Err(error) => self.not_reloaded(&[Diagnostic::new(
                DiagnosticId::InvalidFile,
                "--upstream-ca",
                error.to_string(),
            )]),
        }
    }

    fn not_reloaded(&self, problems: &[Diagnostic]) {
        for problem in problems {
            tracing::error!(help = problem.id.page(), "{problem}");
        }
        let denied = |problem: &Diagnostic| problem.to_string().contains("Permission denied");
        let advice = if self.sandbox.is_on() && problems.iter().any(denied) {
            ". The sandbox permits a reload to read files only in directories that existed at the start and that the \
             configuration named: restart to use others, or set --sandbox off"
        } else {
            "; correct them and send SIGHUP again"
        };
        tracing::error!(
            help = LogEntry::NotReloaded.page(),
            "reload failed ({} problem{}): the previous configuration stays in effect{advice}",
            problems.len(),
            if problems.len() == 1 { "" } else { "s" }
        );
    }
}

fn denied_by_sandbox(message: String) -> Diagnostic {
    Diagnostic::new(DiagnosticId::SandboxDenied, "--credentials", message)
}
