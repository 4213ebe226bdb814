//! The table of options.
//!
//! A new option is one entry here, a field of [`Config`](super::Config), and the code that reads the field. The entry
//! defines flag, environment variable, key of the file, `--help`, completions, man pages, `check`, the row in
//! docs/configuration.md and the behaviour at a reload.
//!
//! The order matters. Values are set in this order, so `ProxyAuth` follows `Proxy`. `check` prints in this order, so
//! options of one mapping of the file are adjacent.

use super::option_spec::{
    DefaultValue::{Computed, Nothing, Text},
    FileKey::{AlsoInside, Inside, Top},
    Heading::{Limits, Listeners, Logging, RoutesAndRules, TlsInterception, Tokens, Upstreams},
    OptionSpec, Printed,
    Reload::{self, Listener, Live},
    Repeat::{Entries, List, Once},
    Setting, field, list, options, resolved_with_others, restart,
};
use super::value::{
    self, ACCESS, ACCESS_LOG, HTTP_VERSION, LOG_FORMAT, LOG_LEVEL, SANDBOX, connect_to, duration,
    listen, named, size, switch, word,
};
use super::{Intercept, Proxy};
use crate::policy::Impersonation;

options! {
    Proxy {
        name: "proxy", value: "ADDR|off", heading: Listeners, repeat: Once, key: Inside("proxy", "listen"),
        help: "Forward proxy, for HTTP_PROXY and HTTPS_PROXY",
        default: Text("127.0.0.1:3128"), default_note: "in exec a free port", reload: Listener,
        setting: Setting {
            set: |config, text, _| {
                let proxy = |(listen, on_ipv6)| Proxy { listen, on_ipv6, auth: None };
                config.proxy = value::or_off(listen::address_or_port)(text)?.map(proxy);
                Ok(())
            },
            print: |config| {
                let proxy = config.proxy.as_ref();
                Printed::or_off(proxy.map(|proxy| listen::printed(proxy.listen, proxy.on_ipv6)))
            },
        },
    }
    Unmatched {
        name: "unmatched", value: "pass|deny", heading: RoutesAndRules, repeat: Once, key: Inside("proxy", "unmatched"),
        help: "What the proxy does with destinations that no rule matches",
        default: Text("pass"), default_note: "", reload: Live,
        setting: field!(unmatched, |text| word(text, ACCESS), |value| named(value, ACCESS)),
    }
    MetadataAccess {
        name: "metadata-access", value: "pass|deny", heading: Listeners, repeat: Once,
        key: Inside("proxy", "metadata-access"),
        help: "What the proxy does with calls to the metadata server",
        default: Text("pass"), default_note: "", reload: Live,
        setting: field!(metadata_access, |text| word(text, ACCESS), |value| named(value, ACCESS)),
    }
    Intercept {
        name: "intercept", value: "BOOL", heading: TlsInterception, repeat: Once, key: Inside("proxy", "intercept"),
        help: "Terminate TLS of CONNECT to destinations that get a token, with a CA generated at start",
        default: Text("false"), default_note: "in exec true", reload: Listener,
        setting: field!(
            intercept,
            |text| Ok::<_, String>(switch(text)?.then(Intercept::default)),
            |value: &Option<_>| value.is_some().to_string()
        ),
    }
    CaDir {
        name: "ca-dir", value: "DIR", heading: TlsInterception, repeat: Once, key: Inside("proxy", "ca-dir"),
        help: "Directory for ca.pem (the CA), bundle.pem (system roots and the CA) and truststore.p12 (the bundle \
               for Java)",
        default: Nothing, default_note: "", reload: Listener,
        setting: resolved_with_others!(|config| {
            let folder = config.intercept.as_ref().and_then(|intercept| intercept.ca_dir.as_ref());
            Printed::or_null(folder.map(|folder| folder.display()))
        }),
    }
    ProxyAuth {
        name: "proxy-auth", value: "random|USER:PASSWORD|off", heading: Listeners, repeat: Once, key: Inside("proxy", "auth"),
        help: "Credentials that the proxy requires; random is for exec, which passes them to its command",
        default: Text("off"), default_note: "in exec random", reload: Live,
        setting: Setting {
            set: |config, text, context| {
                let auth = value::or_off(|text| value::auth::expected(text, context.random_auth))(text)?;
                if let Some(proxy) = &mut config.proxy {
                    proxy.auth = auth;
                }
                Ok(())
            },
            print: |config| match config.proxy.as_ref().and_then(|proxy| proxy.auth.as_ref()) {
                Some(_) => Printed::Secret("it is set; not shown, because it is a secret"),
                None => Printed::Value("off".to_owned()),
            },
        },
    }
    Admin {
        name: "admin", value: "ADDR|off", heading: Listeners, repeat: Once, key: Inside("admin", "listen"),
        help: "Probes, metrics and explanations",
        default: Computed("127.0.0.1:9090, on Cloud Run 0.0.0.0:9090", |config, context| {
            config.admin = Some(value::default_admin(context.env));
        }),
        default_note: "in exec a free port", reload: Listener,
        setting: Setting {
            set: |config, text, _| {
                let admin = value::or_off(listen::address_or_port)(text)?;
                config.admin = admin.map(|(listen, _)| listen);
                config.admin_on_ipv6 = admin.is_some_and(|(_, on_ipv6)| on_ipv6);
                Ok(())
            },
            print: |config| {
                Printed::or_off(config.admin.map(|admin| listen::printed(admin, config.admin_on_ipv6)))
            },
        },
    }
    Quitquitquit {
        name: "quitquitquit", value: "BOOL", heading: Listeners, repeat: Once, key: Inside("admin", "quitquitquit"),
        help: "Accept POST /quitquitquit on the admin port, which ends the sidecar",
        default: Text("false"), default_note: "", reload: Live,
        setting: field!(quitquitquit, switch, bool::to_string),
    }
    AllowNonLoopback {
        name: "allow-non-loopback", value: "BOOL", heading: Listeners, repeat: Once,
        key: AlsoInside("proxy", "allow-non-loopback"),
        help: "Permit addresses of the proxy and of routes that other machines can reach",
        default: Text("false"), default_note: "", reload: Live,
        setting: field!(allow_non_loopback, switch, bool::to_string),
    }
    Discover {
        name: "discover", value: "auto|on|off", heading: RoutesAndRules, repeat: Once, key: Top,
        help: "Resolve `http://SERVICE/` and `http://SERVICE.REGION/` to Cloud Run services",
        default: Text("auto"), default_note: "on if K_SERVICE is set", reload: Live,
        setting: Setting {
            set: |config, text, context| {
                config.discover = value::discover(text)?.unwrap_or_else(|| context.env.is_set("K_SERVICE"));
                Ok(())
            },
            print: |config| Printed::or_off(config.discover.then_some("on")),
        },
    }
    AllowedHost {
        name: "allowed-host", value: "NAME", heading: Listeners, repeat: List, key: Top,
        help: "Host name by which a page may call a route or the admin port, in addition to loopback",
        default: Nothing, default_note: "", reload: Live,
        setting: Setting {
            set: |config, text, _| {
                let host = value::host(text)?;
                if !config.allowed_hosts.contains(&host) {
                    config.allowed_hosts.push(host);
                }
                Ok(())
            },
            print: |config| Printed::List(config.allowed_hosts.iter().map(ToString::to_string).collect()),
        },
    }
    Credentials {
        name: "credentials", value: "auto|metadata|adc|FILE", heading: Tokens, repeat: Once, key: Top,
        help: "The token source: auto (the search order of Application Default Credentials), metadata, adc (a file, never \
               the metadata server) or a credential file",
        default: Text("auto"), default_note: "", reload: Live,
        setting: field!(credentials.mode, value::credentials_mode, ToString::to_string),
    }
    TrustCredentialUrl {
        name: "trust-credential-url", value: "URL-PREFIX", heading: Tokens, repeat: List, key: Top,
        help: "Accept token, STS and IAM endpoints in a credential file that begin with this URL, although they are not https \
               under the universe's domain",
        default: Nothing, default_note: "", reload: Live,
        setting: list!(credentials.trusted_urls, value::trusted_url, ToString::to_string),
    }
    ImpersonateServiceAccount {
        name: "impersonate-service-account", value: "A,B,TARGET", heading: Tokens, repeat: Once, key: Top,
        help: "The base credential impersonates A, which impersonates B, which impersonates TARGET, for every token",
        default: Nothing, default_note: "", reload: Live,
        setting: Setting {
            set: |config, text, _| {
                config.impersonate = Some(Impersonation::parse(text)?);
                Ok(())
            },
            print: |config| Printed::or_null(config.impersonate.as_ref()),
        },
    }
    Placeholder {
        name: "placeholder", value: "VALUE", heading: Tokens, repeat: List, key: Top,
        help: "Value that is replaced by the token if the destination gets one, in addition to `sidentity`",
        default: Nothing, default_note: "", reload: Live,
        setting: list!(placeholders, value::placeholder, String::clone),
    }
    Route {
        name: "route", value: "LISTEN=URL[,OPTION…]", heading: RoutesAndRules, repeat: Entries, key: Top,
        help: "Reverse route; LISTEN is PORT, ADDR:PORT or unix:PATH, with an optional /PREFIX (unix:PATH:/PREFIX); URL may be \
               run://SERVICE[.REGION]",
        default: Nothing, default_note: "", reload: Listener,
        setting: resolved_with_others!(|_| Printed::Routes),
    }
    Rule {
        name: "rule", value: "PATTERN=CREDENTIAL[,OPTION…]", heading: RoutesAndRules, repeat: Entries, key: Top,
        help: "Which credential a host or *.suffix gets: access, id, none or deny",
        default: Nothing, default_note: "", reload: Live,
        setting: resolved_with_others!(|_| Printed::Rules),
    }
    ConnectTo {
        name: "connect-to", value: "HOST:PORT:HOST2:PORT2", heading: Upstreams, repeat: List, key: Top,
        help: "Connect to another address, as with curl",
        default: Nothing, default_note: "", reload: Live,
        setting: list!(upstream.connect_to, connect_to::parse, ToString::to_string),
    }
    UpstreamCa {
        name: "upstream-ca", value: "FILE", heading: Upstreams, repeat: List, key: Top,
        help: "PEM file with additional trust roots",
        default: Nothing, default_note: "", reload: Live,
        setting: list!(upstream.ca_files, |text: &str| Ok::<_, String>(text.into()), |file| file.display().to_string()),
    }
    UpstreamHttp {
        name: "upstream-http", value: "auto|1|2", heading: Upstreams, repeat: Once, key: Top,
        help: "HTTP version for upstreams",
        default: Text("auto"), default_note: "", reload: Live,
        setting: field!(upstream.http, |text| word(text, HTTP_VERSION), |value| named(value, HTTP_VERSION)),
    }
    UpstreamProxy {
        name: "upstream-proxy", value: "http://[USER:PASSWORD@]HOST:PORT|off", heading: Upstreams, repeat: Once, key: Top,
        help: "HTTP proxy for calls to upstreams",
        default: Text("off"), default_note: "in exec HTTPS_PROXY", reload: Live,
        setting: resolved_with_others!(|config| match &config.upstream.proxy {
            Some(proxy) if proxy.authorization.is_some() => {
                Printed::Noted(proxy.egress.to_string(), "its credentials are set; not shown, because they are a \
                                                          secret")
            }
            proxy => Printed::or_off(proxy.as_ref().map(|proxy| &proxy.egress)),
        }),
    }
    NoUpstreamProxy {
        name: "no-upstream-proxy", value: "LIST", heading: Upstreams, repeat: List, key: Top,
        help: "Hosts that are called without that proxy, as in NO_PROXY",
        default: Nothing, default_note: "in exec NO_PROXY", reload: Live,
        setting: resolved_with_others!(|config| {
            Printed::List(config.upstream.no_proxy.entries().map(ToString::to_string).collect())
        }),
    }
    ConnectTimeout {
        name: "connect-timeout", value: "TIME", heading: Upstreams, repeat: Once, key: Top,
        help: "Time limit for each of DNS, TCP, the proxy's response and TLS",
        default: Text("5s"), default_note: "", reload: Live,
        setting: field!(upstream.connect_timeout, duration::positive, duration::printed),
    }
    ResponseTimeout {
        name: "response-timeout", value: "TIME|off", heading: Upstreams, repeat: Once, key: Top,
        help: "Time limit from the end of the request until the response begins",
        default: Text("off"), default_note: "", reload: Live,
        setting: Setting {
            set: |config, text, _| {
                config.response_timeout = value::or_off(duration::positive)(text)?;
                Ok(())
            },
            print: |config| Printed::or_off(config.response_timeout.as_ref().map(duration::printed)),
        },
    }
    TokenTimeout {
        name: "token-timeout", value: "TIME", heading: Tokens, repeat: Once, key: Top,
        help: "Time limit for one token",
        default: Text("8s"), default_note: "", reload: restart!(token_timeout),
        setting: field!(token_timeout, duration::positive, duration::printed),
    }
    IdleTimeout {
        name: "idle-timeout", value: "TIME", heading: Upstreams, repeat: Once, key: Top,
        help: "How long an idle connection to an upstream, or an idle HTTP/2 connection of an app, is kept",
        default: Text("90s"), default_note: "", reload: Live,
        setting: field!(upstream.idle_timeout, duration::parse_duration, duration::printed),
    }
    DrainTimeout {
        name: "drain-timeout", value: "TIME", heading: Limits, repeat: Once, key: Top,
        help: "How long SIGTERM waits for requests in flight",
        default: Text("9s"), default_note: "", reload: Live,
        setting: field!(drain_timeout, duration::parse_duration, duration::printed),
    }
    MaxConnections {
        name: "max-connections", value: "N", heading: Limits, repeat: Once, key: Top,
        help: "Maximum of concurrent connections, and of requests; above it, 503",
        default: Text("8192"), default_note: "", reload: restart!(max_connections),
        setting: field!(max_connections, |text| value::number(text, 1_000_000), usize::to_string),
    }
    MaxIdleConnections {
        name: "max-idle-connections", value: "N", heading: Limits, repeat: Once, key: Top,
        help: "Maximum of idle connections to all upstreams together; above it, the least recently used is closed",
        default: Text("1024"), default_note: "", reload: Live,
        setting: field!(upstream.max_idle, |text| value::number(text, 1_000_000), usize::to_string),
    }
    MaxMemory {
        name: "max-memory", value: "SIZE", heading: Limits, repeat: Once, key: Top,
        help: "Budget for large heads, unread bodies and connections; above it, idle connections are closed, then 503",
        default: Computed("half of the cgroup's limit, otherwise 256Mi", |config, _| config.max_memory = size::default()),
        default_note: "", reload: Live,
        setting: field!(max_memory, size::parse, size::printed),
    }
    Workers {
        name: "workers", value: "N", heading: Limits, repeat: Once, key: Top,
        help: "Number of worker threads",
        default: Computed("the cores that the cgroup allows", |config, _| config.workers = value::cores()),
        default_note: "", reload: restart!(workers),
        setting: field!(workers, |text| value::number(text, 1_024), usize::to_string),
    }
    Sandbox {
        name: "sandbox", value: "auto|off", heading: Limits, repeat: Once, key: Top,
        help: "Restrict the sidecar's own access to files with Landlock, if the kernel has it; in run only",
        default: Text("auto"), default_note: "", reload: restart!(sandbox),
        setting: field!(sandbox, |text| word(text, SANDBOX), |value| named(value, SANDBOX)),
    }
    LogFormat {
        name: "log-format", value: "auto|json|text", heading: Logging, repeat: Once, key: Top,
        help: "Format of the log; auto is text if stderr is a terminal, otherwise json",
        default: Text("auto"), default_note: "", reload: Live,
        setting: field!(log.format, value::log_format, |value| named(value, LOG_FORMAT)),
    }
    LogLevel {
        name: "log-level", value: "error|warn|info|debug|trace", heading: Logging, repeat: Once, key: Top,
        help: "The least severe level that is logged",
        default: Text("info"), default_note: "in exec warn", reload: Live,
        setting: field!(log.level, |text| word(text, LOG_LEVEL), |value| named(value, LOG_LEVEL)),
    }
    AccessLog {
        name: "access-log", value: "off|errors|all", heading: Logging, repeat: Once, key: Top,
        help: "Which requests are logged",
        default: Text("errors"), default_note: "", reload: Live,
        setting: field!(log.access, |text| word(text, ACCESS_LOG), |value| named(value, ACCESS_LOG)),
    }
}

// === impl OptionKey ===

impl OptionKey {
    /// Returns the flag without its dashes.
    pub const fn as_str(self) -> &'static str {
        self.spec().name
    }

    /// Returns the environment variable: `SIDENTITY_` and the name in capitals.
    pub fn variable(self) -> String {
        format!(
            "SIDENTITY_{}",
            self.as_str().replace('-', "_").to_ascii_uppercase()
        )
    }

    /// Returns the option of this name.
    pub fn find(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|option| option.as_str() == name)
    }
}
