//! The configuration: as written (flags, environment, file), and as resolved.
//!
//! [`Config`] is immutable and complete: every default applied, every text parsed. Whatever is wrong is reported all at
//! once, each problem with its place.
//!
//! - `options`: the table of options; `option_spec`: what an entry says, and the macros of the table.
//! - `raw`: the options as texts with their places; `env` and `file` read them, `cli` gives those of flags.
//! - `load`, `value` and `resolve`: from texts to meanings.
//! - `yaml`: the way back, for `sidentity check`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::credentials::Credentials;
use crate::destination::{Destination, Host};
use crate::policy::{EgressProxy, Impersonation, Rule, RuleOptions, ServiceName};

mod diagnostic;
mod entry;
mod env;
mod file;
mod load;
mod node;
mod option_spec;
mod options;
mod raw;
mod resolve;
mod unknown;
mod value;
mod yaml;

pub use diagnostic::{Diagnostic, DiagnosticId, Escaped};
pub use env::Env;
pub use load::{defaults, load, load_over};
pub use option_spec::{Heading, OptionSpec, Reload, Repeat};
pub use options::OptionKey;
pub use raw::{RawConfig, RawEntry, RawFields, Spanned};
pub use resolve::roots::{usable as certificates, usable_text as certificates_in};
pub use resolve::upstream_proxy::check as check_upstream_proxy;
pub use unknown::unknown_variables;
pub use yaml::Yaml;

/// Where the admin port is, unless it is said.
pub const ADMIN_PORT: u16 = 9090;

/// Everything that a running sidecar needs to know.
///
/// [`Default`] is the start of resolution, without the options' defaults: [`defaults`] has those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The forward proxy; `None` for `--proxy off`.
    pub proxy: Option<Proxy>,
    /// `--intercept`; `None` where every `CONNECT` is a blind tunnel.
    pub intercept: Option<Intercept>,
    /// The reverse routes, as the user ordered them.
    pub routes: Vec<Route>,
    /// The user's rules, flags first.
    pub rules: Vec<Rule>,
    /// `--unmatched`: what destinations get through the forward proxy that no rule names.
    pub unmatched: Access,
    /// `--discover`: the forward proxy takes the names of Cloud Run services.
    pub discover: bool,
    /// `--metadata-access`: calls to the metadata server through the forward proxy.
    pub metadata_access: Access,
    /// Where probes, metrics and the status page listen; `None` for `--admin off`.
    pub admin: Option<SocketAddr>,
    /// The admin port listens on ::1 too, where the machine has it.
    pub admin_on_ipv6: bool,
    /// `--quitquitquit`.
    pub quitquitquit: bool,
    /// `--allow-non-loopback`.
    pub allow_non_loopback: bool,
    /// Names under which a page may call a route or the admin port, lower case.
    pub allowed_hosts: Vec<Host>,
    /// `--placeholder`, flags first: what counts as no credential of the app's own, beside `sidentity`.
    pub placeholders: Vec<String>,
    /// Where tokens come from.
    pub credentials: Credentials,
    /// The metadata server, whether tokens come from it or not.
    pub metadata: MetadataServer,
    /// `--impersonate-service-account`: for every token, unless its route or rule names another chain.
    pub impersonate: Option<Impersonation>,
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`, else that of the credential file: for access tokens where no route or rule says
    /// another.
    pub quota_project: Option<HeaderValue>,
    /// The universe domain of the credential file, else `GOOGLE_CLOUD_UNIVERSE_DOMAIN`; else the metadata server is asked.
    pub universe: Option<Arc<str>>,
    /// Everything about connections to upstreams.
    pub upstream: UpstreamConfig,
    /// `--response-timeout`: from the sent request to the response's head; `None` for `off`.
    pub response_timeout: Option<Duration>,
    /// `--token-timeout`: one fetch, and one request's wait for it.
    pub token_timeout: Duration,
    /// `--drain-timeout`.
    pub drain_timeout: Duration,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--max-memory`, in bytes.
    pub max_memory: usize,
    /// `--workers`, at least 1.
    pub workers: usize,
    /// `--sandbox`: `run` restricts its own access to files, where the kernel can do that.
    pub sandbox: bool,
    /// `--log-format`, `--log-level`, `--access-log`.
    pub log: Log,
    /// Things that are allowed and look wrong, for the start-up log.
    pub warnings: Vec<String>,
}

/// The forward proxy's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub listen: SocketAddr,
    /// It listens on ::1 too, where the machine has it.
    pub on_ipv6: bool,
    /// The only value of `Proxy-Authorization` that is let in, where credentials are asked for; marked sensitive.
    pub auth: Option<HeaderValue>,
}

/// What is opened of `CONNECT`: the TLS to destinations that get a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intercept {
    /// `--ca-dir`: where an app finds the certificates to trust.
    pub ca_dir: Option<PathBuf>,
    /// What the app trusts beside the system's roots and the CA.
    pub also_trusted: Vec<CertificateDer<'static>>,
}

/// A reverse route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `LISTEN` as written: the metric's label and the rule's name in `explain`.
    pub name: Arc<str>,
    /// Where it listens; several routes may share one.
    pub listen: Listen,
    /// It listens on ::1 too, where the machine has it.
    pub on_ipv6: bool,
    /// The path prefix under which this route answers, without a trailing slash; empty for all paths.
    pub prefix: String,
    /// The upstream with its own base path; `https` unless it gets no token or the user allowed plaintext.
    pub upstream: Destination,
    /// `run://SERVICE`: where the upstream is, the metadata server says; until then its origin is that of the name.
    pub service: Option<ServiceName>,
    /// What the user said of the credential.
    pub options: RuleOptions,
    /// `http=`: else [`UpstreamConfig::http`].
    pub http: Option<HttpVersion>,
    /// `mode=`: the permissions of its unix socket.
    pub mode: Option<u32>,
}

impl Route {
    /// The permissions of a unix socket without `mode=`. Whoever may connect needs write permission (unix(7)), and other
    /// containers run as other users: the directory decides who gets that far.
    pub const MODE: u32 = 0o666;

    /// The name of its socket: its own, without the prefix.
    pub fn socket_name(&self) -> &str {
        let name = self.name.strip_suffix(self.prefix.as_str());
        name.unwrap_or(&self.name).trim_end_matches(':')
    }
}

/// A listener's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// `pass` or `deny`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Carried.
    #[default]
    Pass,
    /// Refused with 403.
    Deny,
}

/// `--upstream-http`: which HTTP is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// Whatever ALPN gives; HTTP/1.1 in cleartext.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; by prior knowledge in cleartext.
    Http2,
}

/// The metadata server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataServer {
    /// Host and port to connect to.
    pub host: Host,
    /// Its port, 80 unless `GCE_METADATA_HOST` says another.
    pub port: u16,
    /// `NO_GCE_CHECK`: there is none, do not ask.
    pub disabled: bool,
}

/// Everything about connections to upstreams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `--connect-to`, flags first; the first that matches counts.
    pub connect_to: Vec<ConnectTo>,
    /// `--upstream-ca`: PEM files with more trust roots.
    pub ca_files: Vec<PathBuf>,
    /// What these files hold.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// `SSL_CERT_FILE`: in place of the system's roots.
    pub system_ca_file: Option<PathBuf>,
    /// `--upstream-http`.
    pub http: HttpVersion,
    /// `--upstream-proxy`; `None` where upstreams are reached directly.
    pub proxy: Option<Arc<UpstreamProxy>>,
    /// `--connect-timeout`: for each of DNS, TCP, the proxy's answer, TLS and the HTTP/2 preface.
    pub connect_timeout: Duration,
    /// `--idle-timeout` of pooled connections.
    pub idle_timeout: Duration,
    /// `--max-idle-connections`, at least 1.
    pub max_idle: usize,
}

/// `--upstream-proxy` and `--no-upstream-proxy`: the sidecar's own way out.
#[derive(Clone, Debug, Eq)]
pub struct UpstreamProxy {
    /// Where it is, and what is reached without it.
    pub egress: EgressProxy,
    /// `Proxy-Authorization` for it; marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// Where it was written, as in [`Diagnostic::place`].
    pub place: Arc<str>,
}

/// `HOST:PORT:HOST2:PORT2`: connect there instead; `Host`, SNI and token stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// Whom it is for.
    pub host: ConnectHost,
    /// The port it is for; `None` for any.
    pub port: Option<u16>,
    /// Where to connect; `None` keeps the host.
    pub to_host: Option<Host>,
    /// Where to connect; `None` keeps the port.
    pub to_port: Option<u16>,
}

/// The host part of [`ConnectTo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectHost {
    /// `*`, or nothing as in curl.
    Any,
    /// Exactly this one.
    Exact(Host),
    /// `*.suffix`, kept as `.suffix`: whole labels.
    Suffix(String),
}

/// How and what is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `auto` is resolved: JSON when stderr is no terminal.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
    /// Which requests are logged.
    pub access: AccessLog,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One object a line, as Cloud Logging reads it.
    #[default]
    Json,
    /// For people.
    Text,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what an operator wants to know of a healthy run.
    #[default]
    Info,
    /// And how decisions came about.
    Debug,
    /// Everything.
    Trace,
}

/// `--access-log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that ended with 4xx, 5xx, or an error of our own.
    #[default]
    Errors,
    /// Every one.
    All,
}

// === impl UpstreamProxy ===

/// Wherever it was written: a line more in the file is no reason to close connections.
impl PartialEq for UpstreamProxy {
    fn eq(&self, other: &Self) -> bool {
        self.egress == other.egress && self.authorization == other.authorization
    }
}

// === impl Route ===

impl Route {
    /// The upstream as a user writes it.
    pub fn upstream_url(&self) -> String {
        match &self.service {
            Some(service) => format!("run://{service}{}", self.upstream.target),
            None => self.upstream.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
