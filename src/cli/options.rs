//! The options that `run`, `explain`, `token` and `check` share.
//!
//! clap only collects texts here: the configuration knows what they mean, for they come from environment and file too.

use std::fmt;

use clap::Args;

use crate::config::{OptionKey, RawConfig};

// Headings of the help.
const LISTENERS: &str = "Listeners";
const ROUTES_AND_RULES: &str = "Routes and rules";
const TLS_INTERCEPTION: &str = "TLS interception";
const TOKENS: &str = "Tokens";
const UPSTREAMS: &str = "Upstreams";
const LIMITS: &str = "Limits";
const LOGGING: &str = "Logging";

/// Flags as written.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// YAML file with any of these options
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Forward proxy, for HTTP_PROXY and HTTPS_PROXY [default: 127.0.0.1:3128, in exec a free port]
    #[arg(long, help_heading = LISTENERS, value_name = "ADDR|off")]
    proxy: Option<String>,
    /// Probes, metrics and explanations [default: 127.0.0.1:9090, on Cloud Run 0.0.0.0:9090, in exec a free port]
    #[arg(long, help_heading = LISTENERS, value_name = "ADDR|off")]
    admin: Option<String>,
    /// Credentials that the proxy asks for; random, and told to its command alone, in exec only [default: off, in exec
    /// random]
    #[arg(long, help_heading = LISTENERS, value_name = "random|USER:PASSWORD|off")]
    proxy_auth: Option<String>,
    /// Let the proxy and routes listen where others can reach them
    #[arg(
        long,
        help_heading = LISTENERS,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
    )]
    allow_non_loopback: Option<String>,
    /// Name under which a page may call a route or the admin port, beside loopback; repeatable
    #[arg(long, help_heading = LISTENERS, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// What the proxy does with calls to the metadata server [default: pass]
    #[arg(long, help_heading = LISTENERS, value_name = "pass|deny")]
    metadata_access: Option<String>,
    /// The admin port takes POST /quitquitquit
    #[arg(
        long,
        help_heading = LISTENERS,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
    )]
    quitquitquit: Option<String>,
    /// Reverse route; LISTEN is PORT, ADDR:PORT or unix:PATH, with an optional /PREFIX (unix:PATH:/PREFIX); URL may be
    /// run://SERVICE[.REGION]; repeatable
    #[arg(long, help_heading = ROUTES_AND_RULES, value_name = "LISTEN=URL[,OPTION…]")]
    route: Vec<String>,
    /// Which credential a host or *.suffix gets: access, id, none or deny; repeatable
    #[arg(long, help_heading = ROUTES_AND_RULES, value_name = "PATTERN=CREDENTIAL[,OPTION…]")]
    rule: Vec<String>,
    /// What the proxy does with destinations that no rule names [default: pass]
    #[arg(long, help_heading = ROUTES_AND_RULES, value_name = "pass|deny")]
    unmatched: Option<String>,
    /// Take `http://SERVICE/` and `http://SERVICE.REGION/` for Cloud Run services [default: auto, on where K_SERVICE is set]
    #[arg(long, help_heading = ROUTES_AND_RULES, value_name = "auto|on|off")]
    discover: Option<String>,
    /// Open TLS of CONNECT to destinations that get a token, with a CA made at start [default: false, in exec true]
    #[arg(
        long,
        help_heading = TLS_INTERCEPTION,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
    )]
    intercept: Option<String>,
    /// Where ca.pem (that CA), bundle.pem (system roots and it) and truststore.p12 (both for Java) are written
    #[arg(long, help_heading = TLS_INTERCEPTION, value_name = "DIR")]
    ca_dir: Option<String>,
    /// Where tokens come from: auto (the search order of Application Default Credentials), metadata, adc (a file, never the
    /// metadata server) or a credential file [default: auto]
    #[arg(long, help_heading = TOKENS, value_name = "auto|metadata|adc|FILE")]
    credentials: Option<String>,
    /// The base credential impersonates A, which impersonates B, which impersonates TARGET, for every token
    #[arg(long, help_heading = TOKENS, value_name = "A,B,TARGET")]
    impersonate_service_account: Option<String>,
    /// Accept token, STS and IAM endpoints in a credential file that begin with this URL, although they are not https
    /// under the universe's domain; repeatable
    #[arg(long, help_heading = TOKENS, value_name = "URL-PREFIX")]
    trust_credential_url: Vec<String>,
    /// Value that counts as no credential of the app's own where a token is due, beside `sidentity`; repeatable
    #[arg(long, help_heading = TOKENS, value_name = "VALUE")]
    placeholder: Vec<String>,
    /// For one token [default: 8s]
    #[arg(long, help_heading = TOKENS, value_name = "TIME")]
    token_timeout: Option<String>,
    /// Connect elsewhere, as with curl; repeatable
    #[arg(long, help_heading = UPSTREAMS, value_name = "HOST:PORT:HOST2:PORT2")]
    connect_to: Vec<String>,
    /// PEM file with more trust roots; repeatable
    #[arg(long, help_heading = UPSTREAMS, value_name = "FILE")]
    upstream_ca: Vec<String>,
    /// HTTP version spoken with upstreams [default: auto]
    #[arg(long, help_heading = UPSTREAMS, value_name = "auto|1|2")]
    upstream_http: Option<String>,
    /// HTTP proxy through which upstreams are reached [default: off, in exec HTTPS_PROXY]
    #[arg(long, help_heading = UPSTREAMS, value_name = "http://[USER:PASSWORD@]HOST:PORT|off")]
    upstream_proxy: Option<String>,
    /// Hosts that are reached without that proxy, as in NO_PROXY; repeatable [default: none, in exec NO_PROXY]
    #[arg(long, help_heading = UPSTREAMS, value_name = "LIST")]
    no_upstream_proxy: Vec<String>,
    /// For each of DNS, TCP, the proxy's answer and TLS [default: 5s]
    #[arg(long, help_heading = UPSTREAMS, value_name = "TIME")]
    connect_timeout: Option<String>,
    /// Until a response begins [default: off]
    #[arg(long, help_heading = UPSTREAMS, value_name = "TIME|off")]
    response_timeout: Option<String>,
    /// How long an idle connection to an upstream, or an app's idle HTTP/2 one, is kept [default: 90s]
    #[arg(long, help_heading = UPSTREAMS, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Connections at once; over it, 503 [default: 8192]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    max_connections: Option<String>,
    /// Idle connections to all upstreams together; over it, the least recently used is closed [default: 1024]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    max_idle_connections: Option<String>,
    /// Budget for large heads, unread bodies and connections; over it, idle connections close, then 503 [default: half of
    /// the cgroup's limit, else 256Mi]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE")]
    max_memory: Option<String>,
    /// Threads [default: the cores that the cgroup allows]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    workers: Option<String>,
    /// How long SIGTERM waits for requests in flight [default: 9s]
    #[arg(long, help_heading = LIMITS, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// Restrict the sidecar's own access to files with Landlock, where the kernel has it; in run only [default: auto]
    #[arg(long, help_heading = LIMITS, value_name = "auto|off")]
    sandbox: Option<String>,
    /// json unless stderr is a terminal [default: auto]
    #[arg(long, help_heading = LOGGING, value_name = "auto|json|text")]
    log_format: Option<String>,
    /// The least severe level that is logged [default: info, in exec warn]
    #[arg(long, help_heading = LOGGING, value_name = "error|warn|info|debug|trace")]
    log_level: Option<String>,
    /// Which requests are logged [default: errors]
    #[arg(long, help_heading = LOGGING, value_name = "off|errors|all")]
    access_log: Option<String>,
}

// === impl Options ===

impl From<Options> for RawConfig {
    fn from(options: Options) -> Self {
        let mut raw = Self::default();
        raw.set_file(options.config);
        raw.set_flag(OptionKey::Proxy, options.proxy);
        raw.set_flag(OptionKey::Route, options.route);
        raw.set_flag(OptionKey::Rule, options.rule);
        raw.set_flag(OptionKey::Unmatched, options.unmatched);
        raw.set_flag(OptionKey::MetadataAccess, options.metadata_access);
        raw.set_flag(OptionKey::Intercept, options.intercept);
        raw.set_flag(OptionKey::CaDir, options.ca_dir);
        raw.set_flag(OptionKey::Discover, options.discover);
        raw.set_flag(OptionKey::Credentials, options.credentials);
        raw.set_flag(
            OptionKey::ImpersonateServiceAccount,
            options.impersonate_service_account,
        );
        raw.set_flag(OptionKey::TrustCredentialUrl, options.trust_credential_url);
        raw.set_flag(OptionKey::Admin, options.admin);
        raw.set_flag(OptionKey::ProxyAuth, options.proxy_auth);
        raw.set_flag(OptionKey::AllowNonLoopback, options.allow_non_loopback);
        raw.set_flag(OptionKey::AllowedHost, options.allowed_host);
        raw.set_flag(OptionKey::Placeholder, options.placeholder);
        raw.set_flag(OptionKey::ConnectTo, options.connect_to);
        raw.set_flag(OptionKey::UpstreamCa, options.upstream_ca);
        raw.set_flag(OptionKey::UpstreamHttp, options.upstream_http);
        raw.set_flag(OptionKey::UpstreamProxy, options.upstream_proxy);
        raw.set_flag(OptionKey::NoUpstreamProxy, options.no_upstream_proxy);
        raw.set_flag(OptionKey::ConnectTimeout, options.connect_timeout);
        raw.set_flag(OptionKey::ResponseTimeout, options.response_timeout);
        raw.set_flag(OptionKey::TokenTimeout, options.token_timeout);
        raw.set_flag(OptionKey::IdleTimeout, options.idle_timeout);
        raw.set_flag(OptionKey::DrainTimeout, options.drain_timeout);
        raw.set_flag(OptionKey::MaxConnections, options.max_connections);
        raw.set_flag(OptionKey::MaxIdleConnections, options.max_idle_connections);
        raw.set_flag(OptionKey::MaxMemory, options.max_memory);
        raw.set_flag(OptionKey::Workers, options.workers);
        raw.set_flag(OptionKey::Sandbox, options.sandbox);
        raw.set_flag(OptionKey::LogFormat, options.log_format);
        raw.set_flag(OptionKey::LogLevel, options.log_level);
        raw.set_flag(OptionKey::AccessLog, options.access_log);
        raw.set_flag(OptionKey::Quitquitquit, options.quitquitquit);
        raw
    }
}

/// Nothing of the values: one is a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}
