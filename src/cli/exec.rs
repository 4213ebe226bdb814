//! `sidentity exec CMD`: runs a command with a sidecar that ends with it.

mod certificates;
mod child;
mod direct;
mod egress;
mod environment;
mod forwarded_signals;
mod git;
mod java;
mod proxies;
mod wgetrc;

use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::child::Child;
use self::environment::ChildEnv;
use self::forwarded_signals::Signals;
use super::exit::Exit;
use super::flags::Flags;
use super::runtime::runtime;
use crate::app::App;
use crate::config::{self, Config, Env, OptionKey, RawConfig};
use crate::diagnostics::LogEntry;
use crate::server::{DescriptorLimit, ProcessTree, raise_descriptor_limit};
use crate::telemetry;

/// The length of the proxy's password, in bytes.
const PASSWORD: usize = 16;

/// Start the sidecar on free loopback ports and run CMD so that its HTTP and HTTPS calls pass through
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    flags: Flags,
    /// The command and its arguments; write -- before a command that begins with a dash
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs CMD and returns its status. If a signal ended it, returns 128 plus the signal's number. Returns 127 if the
/// command does not exist, and 126 if it cannot be executed.
pub(super) fn run(args: ExecArgs, env: &Env) -> Result<(), Exit> {
    // Signals are caught before any file is created that a signal would leave behind.
    let mut signals = Signals::new()
        .map_err(|error| Exit::failed(format!("cannot wait for signals: {error}")))?;
    let folder = private_folder(env)
        .map_err(|error| Exit::failed(format!("cannot create a directory for the CA: {error}")))?;
    let mut defaults = defaults(&folder, format!("sidentity:{}", password()?));
    let egress = egress::InheritedProxy::of(env);
    egress.set_defaults(&mut defaults);
    let (flags, read_env) = (args.flags, env.clone());
    let mut config = unless_ended(&mut signals, move || {
        let mut config =
            config::load_over(&flags.into(), &read_env, defaults).map_err(Exit::usage)?;
        trust_as_caller(&mut config, &read_env);
        Ok(config)
    })?;
    telemetry::init(&config.log);
    let descriptors = raise_descriptor_limit();
    let proxies = proxies::ProxyVariables::of(env);
    let notice = proxies.notice(&egress, &config);
    config.warnings.extend(notice);
    config.warnings.extend(direct::notice(env));
    for warning in &config.warnings {
        tracing::warn!(help = LogEntry::ConfigurationWarning.page(), "{warning}");
    }
    let mut child_env = ChildEnv::of(&config);
    child_env.wgetrc =
        wgetrc::write(&folder, child_env.bundle().as_deref(), env).map_err(|error| {
            Exit::failed(format!(
                "cannot write the configuration file of wget: {error}"
            ))
        })?;
    let runtime = runtime(config.workers)?;
    let ended = runtime.block_on(around(
        config,
        (child_env, proxies),
        &args.command,
        env,
        signals,
        descriptors,
    ));
    runtime.shutdown();
    match ended? {
        0 => Ok(()),
        status => Err(Exit::silent(status)),
    }
}

/// Runs the sidecar until the child ends. Only the child gets its ports and password.
async fn around(
    config: Config,
    (child_env, proxies): (ChildEnv, proxies::ProxyVariables),
    command: &[OsString],
    env: &Env,
    mut signals: Signals,
    descriptors: DescriptorLimit,
) -> Result<u8, Exit> {
    let app = tokio::select! {
        app = App::build_for(config, ProcessTree::descendants()) => app?,
        // Replaces the signal's default action, so that temporary files are removed.
        Some(signal) = signals.ending() => return Err(ended_by(signal)),
    };
    let proxy = app
        .proxy_address()
        .ok_or_else(|| Exit::misused("flag --proxy", "exec needs the forward proxy".into()))?;
    let java = app.process_tree_address().unwrap_or(proxy);
    let changes = child_env.changes(proxy, java, proxies, env);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(app.run(stop.cancelled_owned()));
    let Some((program, arguments)) = command.split_first() else {
        return Err(Exit::misused("CMD", "there is no command".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    for name in changes.removed {
        command.env_remove(name);
    }
    command.envs(changes.set);
    let child = descriptors.restored(|| Child::spawn(&mut command))?;
    let status = child.wait(&mut signals).await;
    serving.abort();
    status
}

/// Reads files and waits for signals at the same time, because reading a file such as a named pipe may never end.
fn unless_ended<T: Send + 'static>(
    signals: &mut Signals,
    read: impl FnOnce() -> Result<T, Exit> + Send + 'static,
) -> Result<T, Exit> {
    let failed = |error| Exit::failed(format!("cannot read the configuration: {error}"));
    let waiting = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(failed)?;
    let (sender, done) = oneshot::channel();
    std::thread::Builder::new()
        .name("config".to_owned())
        .spawn(move || sender.send(read()).is_ok())
        .map_err(failed)?;
    waiting.block_on(async {
        tokio::select! {
            read = done => read.map_err(|_| failed(io::ErrorKind::Other.into()))?,
            Some(signal) = signals.ending() => Err(ended_by(signal)),
        }
    })
}

fn ended_by(signal: Signal) -> Exit {
    Exit::silent(u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX))
}

/// Makes the command and the upstream client trust the caller's certificates.
fn trust_as_caller(config: &mut Config, env: &Env) {
    let inherited = certificates::InheritedCertificates::of(env);
    config.warnings.extend(inherited.warnings);
    if let Some(intercept) = &mut config.intercept {
        config.warnings.extend(
            java::replaced_trust_stores(env).map(|name| {
                format!(
                    "environment {name}: the trust store is replaced. To keep its certificates, export them as PEM and name \
                     that file in CURL_CA_BUNDLE"
                )
            }),
        );
        intercept.also_trusted.clone_from(&inherited.certificates);
    }
    config.upstream.extra_roots.extend(inherited.certificates);
}

/// Sets the defaults of `exec` for options that the user did not set.
fn defaults(folder: &TempDir, credentials: String) -> RawConfig {
    let mut defaults = RawConfig::default();
    defaults.random_auth = Some(credentials);
    defaults.private_folder = Some(folder.path().to_owned());
    for (name, value) in [
        (OptionKey::Proxy, "127.0.0.1:0".to_owned()),
        (OptionKey::Admin, "127.0.0.1:0".to_owned()),
        (OptionKey::ProxyAuth, "random".to_owned()),
        (OptionKey::Intercept, "true".to_owned()),
        // The child uses the terminal.
        (OptionKey::LogLevel, "warn".to_owned()),
    ] {
        defaults.set_flag(name, [value]);
    }
    defaults
}

/// Creates a directory that only this user can enter. It is removed at the end.
fn private_folder(env: &Env) -> io::Result<TempDir> {
    let runtime = env
        .text("XDG_RUNTIME_DIR")
        .ok()
        .flatten()
        .map(PathBuf::from);
    let parent = runtime
        .filter(|folder| folder.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new()
        .prefix("sidentity-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

fn password() -> Result<String, Exit> {
    let mut bytes = [0; PASSWORD];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Exit::failed("the system provides no random bytes".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
