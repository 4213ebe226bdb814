//! The configuration: as written (flags, environment, file), and as resolved.
//!
//! [`Config`] is immutable and complete: every default is applied, every text is parsed. All problems are reported at
//! once, each with its location.
//!
//! - `options`: the table of options; `option_spec`: the fields of an entry, and the macros of the table.
//! - `raw`: the options as texts with their locations; `env` and `file` read them, `cli` provides those of flags.
//! - `load`, `value` and `resolve`: convert texts to values.
//! - `yaml`: converts values to texts, for `sidentity check`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::credentials::{Base, Credentials, NO_METADATA_SERVER, nothing_found_without_server};
use crate::destination::{Destination, Host};
use crate::policy::{EgressProxy, Impersonation, NoProxy, Rule, RuleOptions, ServiceName};

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
pub(crate) use diagnostic::{MISPLACED_CREDENTIAL, quote};
pub use env::Env;
pub use load::{defaults, load, load_over};
pub use option_spec::{Heading, OptionSpec, Reload, Repeat};
pub use options::OptionKey;
pub use raw::{RawConfig, RawEntry, RawFields, Spanned};
pub(crate) use resolve::metadata::METADATA_VARIABLES;
pub use resolve::roots::{usable_certificates, usable_certificates_in};
pub use resolve::upstream_proxy::check_upstream_proxy;
pub use unknown::unknown_variables;
pub(crate) use value::duration::{parse_duration, printed as printed_duration};
pub use yaml::Yaml;

/// The default port of the admin listener.
pub const ADMIN_PORT: u16 = 9090;

/// The complete configuration of a sidecar.
///
/// [`Default`] has no defaults of options and is only the start of resolution: [`defaults`] has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The forward proxy; `None` for `--proxy off`.
    pub proxy: Option<Proxy>,
    /// `--intercept`; `None` if every `CONNECT` is a blind tunnel.
    pub intercept: Option<Intercept>,
    /// The reverse routes, as the user ordered them.
    pub routes: Vec<Route>,
    /// The user's rules, flags first.
    pub rules: Vec<Rule>,
    /// `--unmatched`: the treatment of destinations that no rule matches, through the forward proxy.
    pub unmatched: PassOrDeny,
    /// `--discover`: the forward proxy resolves the names of Cloud Run services.
    pub discover: bool,
    /// `--metadata-access`: calls to the metadata server through the forward proxy.
    pub metadata_access: PassOrDeny,
    /// The address of probes, metrics and the status page; `None` for `--admin off`.
    pub admin: Option<SocketAddr>,
    /// The admin port also listens on ::1, if the machine has it.
    pub admin_on_ipv6: bool,
    /// `--quitquitquit`.
    pub quitquitquit: bool,
    /// `--allow-non-loopback`.
    pub allow_non_loopback: bool,
    /// Names under which a page may call a route or the admin port, lower case.
    pub allowed_hosts: Vec<Host>,
    /// `--placeholder`, flags first: values that do not count as the app's own credential, in addition to `sidentity`.
    pub placeholders: Vec<String>,
    /// The token source.
    pub credentials: Credentials,
    /// The metadata server, also if tokens come from another source.
    pub metadata: MetadataServer,
    /// `--impersonate-service-account`: for every token, unless its route or rule names another chain.
    pub impersonate: Option<Impersonation>,
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`, otherwise that of the credential file: for access tokens of routes and rules
    /// without one.
    pub quota_project: Option<HeaderValue>,
    /// The universe domain of the credential file, otherwise `GOOGLE_CLOUD_UNIVERSE_DOMAIN`; if `None`, that of the
    /// metadata server.
    pub universe: Option<Arc<str>>,
    /// The settings of connections to upstreams.
    pub upstream: UpstreamConfig,
    /// `--response-timeout`: from the sent request to the response's head; `None` for `off`.
    pub response_timeout: Option<Duration>,
    /// `--token-timeout`: the limit of one fetch, and of a request's wait for it.
    pub token_timeout: Duration,
    /// `--drain-timeout`.
    pub drain_timeout: Duration,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--max-memory`, in bytes.
    pub max_memory: usize,
    /// `--workers`, at least 1.
    pub workers: usize,
    /// `--sandbox`: `run` restricts its own access to files, if the kernel supports it.
    pub sandbox: bool,
    /// `--log-format`, `--log-level`, `--access-log`.
    pub log: Log,
    /// Settings that are valid but look wrong, for the start-up log.
    pub warnings: Vec<String>,
    /// The options whose value is written, although another machine may have another default.
    pub explicit: ExplicitOptions,
}

/// Options that the user set to another value than `auto`, and whose default depends on the machine. `check` prints
/// them even if they equal the default here. Configurations with the same values are equal, however they were written.
#[derive(Clone, Debug, Default, Eq)]
pub struct ExplicitOptions(pub(crate) BTreeSet<OptionKey>);

impl PartialEq for ExplicitOptions {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The forward proxy's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The address.
    pub listen: SocketAddr,
    /// It also listens on ::1, if the machine has it.
    pub on_ipv6: bool,
    /// The only accepted value of `Proxy-Authorization`, if credentials are required; marked sensitive.
    pub auth: Option<HeaderValue>,
}

/// Interception of the TLS of `CONNECT` to destinations that get a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intercept {
    /// `--ca-dir`: the directory of the certificates that an app must trust.
    pub ca_dir: Option<PathBuf>,
    /// Certificates in the bundle, in addition to the system's roots and the CA.
    pub also_trusted: Vec<CertificateDer<'static>>,
}

/// A reverse route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `LISTEN` as written: the label of metrics and the rule's name in `explain`.
    pub name: Arc<str>,
    /// The address; several routes may share one.
    pub listen: Listen,
    /// It also listens on ::1, if the machine has it.
    pub on_ipv6: bool,
    /// The path prefix that this route serves, without a trailing slash; empty for all paths.
    pub prefix: String,
    /// The upstream with its own base path; `https` unless it gets no token or the user allowed plaintext.
    pub upstream: Destination,
    /// `run://SERVICE`: the metadata server determines the upstream; before that the origin has the service's name.
    pub service: Option<ServiceName>,
    /// The user's options for the credential.
    pub options: RuleOptions,
    /// `http=`; if `None`, [`UpstreamConfig::http`] applies.
    pub http: Option<HttpVersion>,
    /// `mode=`: the permissions of its unix socket.
    pub mode: Option<u32>,
}

impl Route {
    /// The permissions of a unix socket without `mode=`. A client needs write permission to connect (unix(7)), and
    /// other containers run as other users. The directory controls access.
    pub const MODE: u32 = 0o666;

    /// Returns the name of the socket: the route's name without the prefix.
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
pub enum PassOrDeny {
    /// Forwarded.
    #[default]
    Pass,
    /// Rejected with 403.
    Deny,
}

/// `--upstream-http`: the HTTP version used with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// The version that ALPN selects; HTTP/1.1 in cleartext.
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
    /// The port, 80 unless `GCE_METADATA_HOST` has one.
    pub port: u16,
    /// `NO_GCE_CHECK`: the metadata server must not be called.
    pub disabled: bool,
}

/// The settings of connections to upstreams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// `--connect-to`, flags first; the first match applies.
    pub connect_to: Vec<ConnectTo>,
    /// `--upstream-ca`: PEM files with more trust roots.
    pub ca_files: Vec<PathBuf>,
    /// The certificates of these files.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// `SSL_CERT_FILE`: instead of the system's roots.
    pub system_ca_file: Option<PathBuf>,
    /// `--upstream-http`.
    pub http: HttpVersion,
    /// `--upstream-proxy`; `None` if upstreams are called directly.
    pub proxy: Option<Arc<UpstreamProxy>>,
    /// `--no-upstream-proxy`, also if no proxy is set: `exec` then uses it with the proxy of its caller.
    pub no_proxy: NoProxy,
    /// `--connect-timeout`: the limit for each of DNS, TCP, the proxy's response, TLS and the HTTP/2 preface.
    pub connect_timeout: Duration,
    /// `--idle-timeout` of pooled connections.
    pub idle_timeout: Duration,
    /// `--max-idle-connections`, at least 1.
    pub max_idle: usize,
}

/// `--upstream-proxy` and `--no-upstream-proxy`: the proxy for the sidecar's own calls.
#[derive(Clone, Debug, Eq)]
pub struct UpstreamProxy {
    /// The proxy's address, and the hosts that are called without it.
    pub egress: EgressProxy,
    /// `Proxy-Authorization` for it; marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// The location in the configuration, as in [`Diagnostic::place`].
    pub place: Arc<str>,
}

/// `HOST:PORT:HOST2:PORT2`: replaces the address of the connection; `Host`, SNI and token stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// The host that it applies to.
    pub host: ConnectHost,
    /// The port that it applies to; `None` for any.
    pub port: Option<u16>,
    /// The host to connect to; `None` keeps it.
    pub to_host: Option<Host>,
    /// The port to connect to; `None` keeps it.
    pub to_port: Option<u16>,
}

/// The host part of [`ConnectTo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectHost {
    /// Any host: `*`, or an empty text as in curl.
    Any,
    /// One host.
    Exact(Host),
    /// `*.suffix`, stored as `.suffix`: matches whole labels.
    Suffix(String),
}

/// The settings of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// `auto` is resolved: JSON if stderr is not a terminal.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
    /// Which requests are logged.
    pub access: AccessLog,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One object per line, as Cloud Logging reads it.
    #[default]
    Json,
    /// Human-readable text.
    Text,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// Also conditions that may cause a failure.
    Warn,
    /// Also events of normal operation that an operator needs.
    #[default]
    Info,
    /// Also the reasons of decisions.
    Debug,
    /// Everything.
    Trace,
}

/// `--access-log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// No requests.
    Off,
    /// Requests that ended with 4xx, 5xx, or an error of the sidecar.
    #[default]
    Errors,
    /// Every request.
    All,
}

// === impl Config ===

impl Config {
    /// Returns why no token can be obtained, if that is known without a call: there is no credential file, and
    /// `NO_GCE_CHECK` is set.
    pub(crate) fn no_credentials(&self) -> Option<String> {
        match &self.credentials.base {
            Base::Metadata { searched } if self.metadata.disabled => Some(match searched {
                Some(searched) => nothing_found_without_server(searched),
                None => format!("no token can be obtained: {NO_METADATA_SERVER}"),
            }),
            Base::Metadata { .. } | Base::File(_) => None,
        }
    }
}

// === impl UpstreamProxy ===

/// Ignores the location: a new line in the file must not close connections.
impl PartialEq for UpstreamProxy {
    fn eq(&self, other: &Self) -> bool {
        self.egress == other.egress && self.authorization == other.authorization
    }
}

// === impl Route ===

impl Route {
    /// Returns the upstream as a user writes it.
    pub fn upstream_url(&self) -> String {
        match &self.service {
            Some(service) => format!("run://{service}{}", self.upstream.target),
            None => self.upstream.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
