//! `sidentity run`: the sidecar, until it is told to stop.

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::options::Options;
use crate::app::{App, StartError};
use crate::config::{self, Config, Env};
use crate::telemetry;

/// Threads that may wait for a resolver at a time.
const BLOCKING_THREADS: usize = 32;

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once with 128 and its number.
pub(super) fn run(options: Options, env: &Env) -> Result<(), Exit> {
    let config = config::load(&options.into(), env).map_err(Exit::usage)?;
    telemetry::init(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime(config.workers)?;
    let ended = runtime.block_on(serve(config));
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

async fn serve(config: Config) -> Result<(), Exit> {
    let signals = Signals::new()?;
    let app = App::build(config).await.map_err(Exit::from)?;
    announce(&app);
    let stop = CancellationToken::new();
    tokio::select! {
        () = app.run(stop.clone().cancelled_owned()) => Ok(()),
        number = signals.second(stop) => Err(Exit::signalled(number)),
    }
}

/// A few lines: what listens where.
fn announce(app: &App) {
    if let Some(address) = app.proxy_address() {
        tracing::info!(listener = "proxy", %address, "forward proxy: HTTP_PROXY=http://{address}");
    }
    for route in app.routes() {
        tracing::info!(
            listener = route.name,
            address = route.address,
            "route {} to {}: {}",
            route.address,
            route.upstream,
            route.gets
        );
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(listener = "admin", %address, "admin: http://{address}/");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        let failed = |error| Exit::failed(format!("cannot wait for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Cancels `stop` at the first signal; completes with the number of the second.
    async fn second(mut self, stop: CancellationToken) -> u8 {
        self.next().await;
        stop.cancel();
        self.next().await
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

impl From<StartError> for Exit {
    fn from(error: StartError) -> Self {
        Self::failed(error.to_string())
    }
}
