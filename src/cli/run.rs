//! `sidentity run`: the sidecar, until it is told to stop.

mod sandbox;
mod signals;
mod supervisor;

use std::convert::Infallible;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use self::sandbox::Sandbox;
use self::signals::{Passing, RequestOutcome, Wish};
use self::supervisor::Supervisor;
use super::exit::Exit;
use super::options::Options;
use crate::app::{App, Control, StartError};
use crate::config::{self, Config, Diagnostic, Env, RawConfig};
use crate::dns;
use crate::server::raise_descriptor_limit;
use crate::telemetry;

/// Threads that may block at a time: all that resolvers may leave hanging, and some for files and process tables, which
/// must not wait for those. The metadata client's resolver looks up one name, so it blocks one.
const BLOCKING_THREADS: usize = dns::MAX_THREADS + 32;

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once with 128 and its number. SIGHUP has the
/// file read again.
pub(super) fn run(options: Options, env: &Env) -> Result<(), Exit> {
    let flags = RawConfig::from(options);
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
    // What still runs was cut off by a second signal or by the drain's end.
    runtime.shutdown_background();
    ended
}

/// One thread where there is one core: a second one would only take turns with it.
pub(super) fn runtime(workers: usize) -> Result<Runtime, Exit> {
    let mut builder = match workers {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Exit::failed(format!("cannot start threads: {error}")))
}

async fn serve(config: Config, flags: RawConfig, env: &Env, sandbox: Sandbox) -> Result<(), Exit> {
    let (ending, passing) = (RequestOutcome::new()?, Passing::new()?);
    let app = App::build(config).await?;
    announce(&app);
    let caretaker = Caretaker {
        status: status(&app),
        supervisor: Supervisor::of(env),
        control: app.control(),
        env: env.clone(),
        flags,
        sandbox,
    };
    caretaker.supervisor.ready(&caretaker.status);
    let stop = CancellationToken::new();
    tokio::select! {
        () = app.run(stop.clone().cancelled_owned()) => Ok(()),
        number = ending.second(stop) => Err(Exit::signalled(number)),
        never = caretaker.attend(passing) => match never {},
    }
}

/// A few lines: what listens where.
fn announce(app: &App) {
    if let Some(address) = app.proxy_address() {
        tracing::info!(listener = "proxy", %address, "forward proxy: HTTP_PROXY=http://{address}");
    }
    let control = app.control();
    announce_credential(&control);
    announce_ways(&control);
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

/// Where the identity comes from, as far as the configuration says it. The metadata server's account follows once it is
/// known.
fn announce_credential(control: &Control) {
    let (source, identities) = control.identities();
    for identity in identities {
        tracing::info!(source = source.as_str(), "{identity}");
    }
}

/// What gets which token.
fn announce_ways(control: &Control) {
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

/// Things that are allowed and look wrong.
fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// One line for the service manager.
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

/// Does what signals ask for while the sidecar serves.
struct Caretaker {
    control: Control,
    supervisor: Supervisor,
    status: String,
    flags: RawConfig,
    env: Env,
    sandbox: Sandbox,
}

// === impl Caretaker ===

impl Caretaker {
    async fn attend(mut self, mut signals: Passing) -> Infallible {
        let mut draining = false;
        loop {
            tokio::select! {
                () = self.supervisor.sign_due() => self.supervisor.alive(),
                () = self.control.drain_begun(), if !draining => {
                    draining = true;
                    self.supervisor.stopping();
                }
                wish = signals.next() => match wish {
                    Wish::Reload if self.control.is_draining() => {
                        tracing::warn!("SIGHUP: not reloaded, for the end has begun");
                    }
                    Wish::Reload => {
                        self.supervisor.reloading();
                        self.reload().await;
                        self.supervisor.ready(&self.status);
                    }
                    Wish::Thawed => {
                        tracing::info!("SIGCONT: idle connections to upstreams are closed, expired tokens fetched anew");
                        self.control.resumed();
                    }
                },
            }
        }
    }

    /// Flags and environment stay; the file, and those it names, are read anew.
    async fn reload(&self) {
        let (flags, env) = (self.flags.clone(), self.env.clone());
        // A file may be slow to read.
        let loaded = tokio::task::spawn_blocking(move || config::load(&flags, &env)).await;
        let config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(diagnostics)) => return self.not_reloaded(&diagnostics),
            Err(error) => {
                return self.not_reloaded(&[Diagnostic::new("reload", error.to_string())]);
            }
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
            return self.not_reloaded(&[Diagnostic::new("--credentials", message)]);
        }
        let rules = config.rules.len();
        warn(&config);
        match self.control.reload(config) {
            Ok(waiting) => {
                for what in waiting {
                    tracing::warn!("needs a restart: {what}");
                }
                announce_credential(&self.control);
                announce_ways(&self.control);
                let routes = self.control.routes().len();
                tracing::info!("reloaded: {routes} routes and {rules} rules are in force");
            }
            Err(error) => self.not_reloaded(&[Diagnostic::new("--upstream-ca", error.to_string())]),
        }
    }

    fn not_reloaded(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            tracing::error!("{diagnostic}");
        }
        tracing::error!(
            "not reloaded, nothing has changed: problems: {}",
            diagnostics.len()
        );
        let denied = |diagnostic: &Diagnostic| diagnostic.to_string().contains("Permission denied");
        if self.sandbox.is_on() && diagnostics.iter().any(denied) {
            tracing::info!(
                "the sandbox lets a reload read files only in the directories of those that the start named: restart to \
                 use others, or set --sandbox off"
            );
        }
    }
}

impl From<StartError> for Exit {
    fn from(error: StartError) -> Self {
        Self::failed(error.to_string())
    }
}
