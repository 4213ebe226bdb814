//! `sidentity run`: the sidecar, until it is told to stop.

mod sandbox;
mod signals;
mod supervisor;

use std::convert::Infallible;
use std::fmt;

use tokio_util::sync::CancellationToken;

use self::sandbox::Sandbox;
use self::signals::{ControlSignals, ShutdownSignals, SignalAction};
use self::supervisor::Supervisor;
use super::exit::Exit;
use super::flags::Flags;
use super::runtime::runtime;
use crate::app::{App, Control, StartError};
use crate::config::{self, Config, Diagnostic, DiagnosticId, Env, RawConfig};
use crate::server::raise_descriptor_limit;
use crate::telemetry;

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once with 128 and its number. SIGHUP reloads the
/// file.
pub(super) fn run(flags: Flags, env: &Env) -> Result<(), Exit> {
    let flags = RawConfig::from(flags);
    let config = config::load(&flags, env).map_err(Exit::usage)?;
    telemetry::init(&config.log);
    warn(&config);
    let file = flags.file_path(env);
    // Before the first thread starts.
    let sandbox = Sandbox::enter(&config, file.as_deref());
    sandbox.announce();
    raise_descriptor_limit();
    let runtime = runtime(config.workers)?;
    let ended = runtime.block_on(serve(config, flags, env, sandbox));
    // A second signal or the drain's end has cancelled all that still runs.
    runtime.shutdown_background();
    ended
}

async fn serve(config: Config, flags: RawConfig, env: &Env, sandbox: Sandbox) -> Result<(), Exit> {
    let (shutdown, control) = (ShutdownSignals::new()?, ControlSignals::new()?);
    let app = App::build(config).await?;
    announce(&app);
    let signal_loop = SignalLoop {
        status: status(&app),
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
        number = shutdown.second(stop) => Err(Exit::signalled(number)),
        never = signal_loop.run(control) => match never {},
    }
}

/// Logs the addresses of all listeners.
fn announce(app: &App) {
    if let Some(address) = app.proxy_address() {
        tracing::info!(listener = "proxy", %address, "forward proxy: HTTP_PROXY=http://{address}");
    }
    let control = app.control();
    announce_credential(&control);
    announce_routes(&control);
    if control.proxy_summary().is_some() && !control.intercepts() {
        tracing::info!(
            "CONNECT is a blind tunnel, so https:// through HTTPS_PROXY gets no token: let the app call http:// (it goes out \
             over TLS) or a route, or set --intercept"
        );
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(listener = "admin", %address, "admin: http://{address}/");
    }
}

/// Logs where the identity comes from, as far as the configuration says it. The metadata server's account is logged once it
/// is known.
fn announce_credential(control: &Control) {
    let (source, identities) = control.identities();
    for identity in identities {
        tracing::info!(source = source.as_str(), "{identity}");
    }
}

/// Logs which calls get which token.
fn announce_routes(control: &Control) {
    if let Some(get) = control.proxy_summary() {
        tracing::info!("calls through the forward proxy get: {get}");
    }
    if let Some(egress) = control.egress() {
        tracing::info!("upstreams are reached through the proxy {egress}");
    }
    for route in control.routes() {
        tracing::info!(
            listener = &*route.name,
            address = route.address,
            "route {} to {}: {}",
            route.address,
            route.upstream,
            route.gets
        );
    }
}

/// Logs settings that are allowed and look wrong.
fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// Returns one line for the service manager.
fn status(app: &App) -> String {
    let listens = [
        app.proxy_address()
            .map(|address| format!("proxy {address}")),
        app.admin_address()
            .map(|address| format!("admin {address}")),
    ];
    let routes = app.control().routes().len();
    let listens: Vec<String> = listens.into_iter().flatten().collect();
    format!("serving: {}; routes: {routes}", listens.join(", "))
}

/// Carries out what signals ask for while the sidecar serves.
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
        loop {
            tokio::select! {
                () = self.supervisor.sign_due() => self.supervisor.alive(),
                () = self.control.drain_begun(), if !draining => {
                    draining = true;
                    self.supervisor.stopping();
                }
                action = signals.next() => match action {
                    SignalAction::Reload if self.control.is_draining() => {
                        tracing::warn!("SIGHUP ignored: shutdown is in progress");
                    }
                    SignalAction::Reload => {
                        self.supervisor.reloading();
                        self.reload().await;
                        self.supervisor.ready(&self.status);
                    }
                    SignalAction::Resumed => {
                        tracing::info!("SIGCONT: idle connections to upstreams are closed, expired tokens are fetched again");
                        self.control.resumed();
                    }
                },
            }
        }
    }

    /// Reads the file, and those that it names, again. Flags and environment stay.
    async fn reload(&self) {
        let (flags, env) = (self.flags.clone(), self.env.clone());
        // A file may be slow to read.
        let loaded = tokio::task::spawn_blocking(move || config::load(&flags, &env)).await;
        let config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(diagnostics)) => return self.not_reloaded(&diagnostics),
            Err(error) => return self.not_reloaded(&[format!("reload: {error}")]),
        };
        if let Some(program) = config
            .credentials
            .program()
            .filter(|_| self.sandbox.is_on())
        {
            let message = format!(
                "the credential file names the executable {program}, which the sandbox does not let start: restart, or set \
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
                "the credential file names the file {file}, which the sandbox does not let read: Permission denied"
            );
            return self.not_reloaded(&[denied_by_sandbox(message)]);
        }
        let rules = config.rules.len();
        warn(&config);
        match self.control.reload(config) {
            Ok(waiting) => {
                for what in waiting {
                    tracing::warn!("needs a restart: {what}");
                }
                announce_credential(&self.control);
                announce_routes(&self.control);
                let routes = self.control.routes().len();
                tracing::info!("reloaded: {routes} routes and {rules} rules are in force");
            }
            Err(error) => self.not_reloaded(&[Diagnostic::new(
                DiagnosticId::InvalidFile,
                "--upstream-ca",
                error.to_string(),
            )]),
        }
    }

    fn not_reloaded(&self, problems: &[impl fmt::Display]) {
        for problem in problems {
            tracing::error!("{problem}");
        }
        tracing::error!(
            "not reloaded, nothing has changed: problems: {}",
            problems.len()
        );
        let denied = |problem: &dyn fmt::Display| problem.to_string().contains("Permission denied");
        if self.sandbox.is_on() && problems.iter().any(|problem| denied(problem)) {
            tracing::info!(
                "the sandbox lets a reload read files only in the directories of those that the start named: restart to \
                 use others, or set --sandbox off"
            );
        }
    }
}

fn denied_by_sandbox(message: String) -> Diagnostic {
    Diagnostic::new(DiagnosticId::SandboxDenied, "--credentials", message)
}
