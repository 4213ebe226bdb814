//! Builds a sidecar from a [`Config`] and runs it. The only module that connects all others.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::generation::{Generation, Process};
use self::sockets::{bind, tcp};
use crate::admin::{Admin, AdminPort};
use crate::config::{Config, PassOrDeny};
use crate::diagnostics::LogEntry;
use crate::diagnostics::startup::{self, BoundListeners};
use crate::intercept::{Interceptor, NoAuthority, NotWritten};
use crate::memory::Memory;
use crate::policy::{self, Placeholders, Policy, Settings};
use crate::proxy::{
    CredentialProvider, Interception, OpenedTunnel, OpenedTunnelSender, RequestBody, SharedState,
    UNIVERSE_TIMEOUT,
};
use crate::server::{
    Listener, ListenerError, ProcessTree, Server, ServerLimits, SharedListenerState,
};
use crate::telemetry::Metrics;
use crate::token::{Facts, Logins, TokenCache, TokenSources};
use crate::upstream::BadRoots;

mod control;
mod entry_points;
mod generation;
mod reload;
mod sockets;

pub use control::Control;
pub(crate) use entry_points::configured_entry_points;

/// A drain ends when nothing has been in flight for this long.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// The time limit for closing idle connections after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// A sidecar whose listeners are bound. [`run`](Self::run) serves them.
///
/// # Examples
///
/// ```
/// use sidentity::app::App;
/// use sidentity::config::{self, Env, OptionKey, RawConfig};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut flags = RawConfig::default();
/// flags.set_flag(OptionKey::Proxy, ["127.0.0.1:0".to_owned()]);
/// flags.set_flag(OptionKey::Admin, ["off".to_owned()]);
/// let config = config::load(&flags, &Env::default()).expect("it is valid");
/// let app = App::build(config).await?;
/// let proxy = app.proxy_address().expect("port 0 takes a free port");
/// assert_ne!(proxy.port(), 0);
/// // Serves until the future completes, then drains.
/// app.run(async {}).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct App {
    control: Control,
    server: Server,
    opened: mpsc::Receiver<OpenedTunnel>,
    listeners: Vec<(Listener, SharedListenerState)>,
    admin: (Vec<Listener>, Arc<ArcSwap<Admin>>),
}

/// The error of a sidecar that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The trust roots are unusable.
    #[error(transparent)]
    Roots(#[from] BadRoots),
    /// The interception CA cannot be created.
    #[error(transparent)]
    Authority(#[from] NoAuthority),
    /// `--ca-dir` cannot be written to.
    #[error(transparent)]
    CaDir(#[from] NotWritten),
}

impl App {
    /// Binds every listener and connects the parts. Clients can connect from now on; [`run`](Self::run) serves them.
    ///
    /// # Errors
    ///
    /// Fails if an address is in use, trust roots cannot be read, or a directory cannot be written to.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        Self::build_for(config, None).await
    }

    /// Like [`build`](Self::build), with other limits and deadlines than those of the configuration.
    ///
    /// # Errors
    ///
    /// Fails like [`build`](Self::build).
    pub async fn build_with(config: Config, limits: ServerLimits) -> Result<Self, StartError> {
        Self::assemble(config, None, limits).await
    }

    /// Like [`build`](Self::build). If the proxy requires credentials, a second port accepts the processes of `tree`
    /// without them.
    ///
    /// # Errors
    ///
    /// Fails like [`build`](Self::build).
    pub async fn build_for(config: Config, tree: Option<ProcessTree>) -> Result<Self, StartError> {
        let limits = ServerLimits::of(&config);
        Self::assemble(config, tree, limits).await
    }

    async fn assemble(
        config: Config,
        tree: Option<ProcessTree>,
        limits: ServerLimits,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let (bound, sockets) = bind(&config, tree).await?;
        let logins = Logins::default();
        let provider = Arc::new(provider(&config, metrics.clone(), &logins)?);
        let (sender, opened) = OpenedTunnelSender::channel();
        let interceptor = interceptor(&config, &provider).await?;
        let process = Process {
            interception: interceptor.map(|interceptor| Interception {
                interceptor: Arc::new(interceptor),
                opened: sender.clone(),
            }),
            opened: sender,
            shared: SharedState::new(config.max_connections, Memory::new(config.max_memory)),
            metrics,
            logins,
            bound,
            in_flight: Arc::default(),
            lifecycle: Arc::default(),
        };
        let upstream = process.upstream(&config)?;
        let idle = limits.idle.clone();
        let server = Server::new(
            process.in_flight.clone(),
            limits,
            process.shared.memory.clone(),
        );
        let generation = Generation::new(&process, config, provider, upstream);
        let serving = generation
            .listener_states
            .iter()
            .cloned()
            .map(ArcSwap::from_pointee);
        let serving: Vec<SharedListenerState> = serving.map(Arc::new).collect();
        let admin = Arc::new(ArcSwap::from_pointee(generation.admin.clone()));
        Ok(Self {
            listeners: sockets
                .app
                .into_iter()
                .zip(&serving)
                .flat_map(|(listeners, serving)| {
                    listeners
                        .into_iter()
                        .map(|listener| (listener, serving.clone()))
                })
                .collect(),
            admin: (sockets.admin, admin.clone()),
            control: Control::new(process, generation, serving, admin, idle),
            server,
            opened,
        })
    }

    /// Returns a handle that reloads and inspects the sidecar, also while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Returns the address of the forward proxy.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.control.bound().proxy.as_ref().and_then(tcp)
    }

    /// Returns the port of the forward proxy that accepts the processes of the tree without credentials.
    pub fn process_tree_address(&self) -> Option<SocketAddr> {
        let tree = self.control.bound().tree.as_ref();
        tree.and_then(|(_, listen)| tcp(listen))
    }

    /// Returns the addresses of routes, in the order in which the configuration names them.
    pub fn route_addresses(&self) -> Vec<SocketAddr> {
        let routes = &self.control.bound().routes;
        routes
            .iter()
            .filter_map(|(_, listen)| tcp(listen))
            .collect()
    }

    /// Returns the address of the admin port.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.control.bound().admin
    }

    /// Returns the addresses for the log, except those of routes.
    pub(crate) fn listeners(&self) -> BoundListeners {
        BoundListeners {
            proxy: self.proxy_address(),
            admin: self.admin_address(),
            intercepts: self.control.intercepts(),
        }
    }

    /// Serves until `shutdown` completes or a client of the admin port requests the end. Then it drains: it serves
    /// until nothing has been in flight for a second, or until the drain timeout.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            control,
            server,
            opened,
            listeners,
            admin,
        } = self;
        let (in_flight, lifecycle) = (control.in_flight().clone(), control.lifecycle().clone());
        // Set before the first probe can be answered.
        lifecycle.serving();
        // If there is a forward proxy, it is the first listener.
        if let Some((_, serving)) = listeners.first() {
            server.serve_opened(opened, serving.clone());
        }
        for (listener, serving) in listeners {
            server.listen(listener, serving);
        }
        let (listeners, admin) = admin;
        let admin = AdminPort::new(admin);
        for listener in listeners {
            server.listen_admin(listener, admin.clone());
        }
        control.prefetch();

        tokio::select! {
            () = shutdown => {}
            () = lifecycle.asked_to_quit() => {}
        }
        lifecycle.draining();
        let timeout = control.drain_timeout();
        let deadline = Instant::now() + timeout;
        tracing::info!(
            in_flight = in_flight.count(),
            "draining: still serving, for at most {timeout:?}",
        );
        let drained = tokio::time::timeout_at(deadline, in_flight.quiet(QUIET_FOR)).await;
        // The requests that the close cuts off. Without any, only the second of quiet is missing.
        let cut_off = drained.map_or_else(|_| in_flight.count(), |()| 0);
        let close_by = deadline.min(Instant::now() + CLOSE_TIMEOUT);
        let _ = tokio::time::timeout_at(close_by, server.close()).await;
        if let Some(unused) = control.unused() {
            tracing::info!("{unused}");
        }
        if cut_off == 0 {
            tracing::info!("drained");
        } else {
            tracing::warn!(
                in_flight = cut_off,
                help = LogEntry::DrainCutOff.page(),
                "the drain timed out: requests in flight are cut off"
            );
        }
    }
}

/// Returns the policy of a configuration.
pub(crate) fn policy(config: &Config) -> Policy {
    Policy::new(
        config.rules.clone(),
        Settings {
            unmatched_denied: config.unmatched == PassOrDeny::Deny,
            metadata_denied: config.metadata_access == PassOrDeny::Deny,
            metadata: Some((config.metadata.host.clone(), config.metadata.port)),
            quota_project: config.quota_project.clone(),
            impersonate: config.impersonate.clone(),
            base: config.credentials.base_credential(),
            credential_name: config.credentials.credential_name(),
            discover: config.discover,
            placeholders: Placeholders::new(&config.placeholders),
        },
    )
}

/// Creates the policy, the token cache and the facts of a configuration.
///
/// # Errors
///
/// Fails if the user's file of trust roots cannot be used.
pub(crate) fn provider(
    config: &Config,
    metrics: Arc<Metrics>,
    logins: &Logins,
) -> Result<CredentialProvider, BadRoots> {
    let sources = TokenSources::of_config::<RequestBody>(config, &metrics, logins)?;
    let facts = Facts::new(sources.clone(), config.universe.clone());
    let tokens = TokenCache::new(sources, metrics);
    Ok(CredentialProvider::new(policy(config), tokens, facts))
}

/// Creates the CA, and writes the files by which an app trusts it.
async fn interceptor(
    config: &Config,
    provider: &CredentialProvider,
) -> Result<Option<Interceptor>, StartError> {
    let Some(intercept) = config.intercept.as_ref().filter(|_| config.proxy.is_some()) else {
        return Ok(None);
    };
    // The CA is limited to its domains, which include the universe domain and cannot be extended later.
    let universe = tokio::time::timeout(UNIVERSE_TIMEOUT, provider.facts().universe()).await;
    if !matches!(universe, Ok(Ok(_))) {
        startup::log_unknown_universe();
    }
    let domains = provider.policy().granted_domains(&provider.universe());
    let interceptor = Interceptor::new(domains, intercept.ca_dir.clone(), SystemTime::now())?;
    interceptor.publish(
        config.upstream.system_ca_file.as_deref(),
        &intercept.also_trusted,
    )?;
    if let Some(folder) = interceptor.ca_dir().map(Path::display) {
        startup::log_trust_files(folder);
    }
    Ok(Some(interceptor))
}
