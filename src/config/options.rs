//! The options' names: one list for flags, environment and file.

/// An option that a flag, a variable or a key may set; `--config` stands apart, for a file cannot name a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptionKey {
    /// `--proxy`
    Proxy,
    /// `--route`
    Route,
    /// `--rule`
    Rule,
    /// `--unmatched`
    Unmatched,
    /// `--metadata-access`
    MetadataAccess,
    /// `--intercept`
    Intercept,
    /// `--ca-dir`
    CaDir,
    /// `--discover`
    Discover,
    /// `--credentials`
    Credentials,
    /// `--impersonate-service-account`
    ImpersonateServiceAccount,
    /// `--trust-credential-url`
    TrustCredentialUrl,
    /// `--admin`
    Admin,
    /// `--proxy-auth`
    ProxyAuth,
    /// `--allow-non-loopback`
    AllowNonLoopback,
    /// `--allowed-host`
    AllowedHost,
    /// `--placeholder`
    Placeholder,
    /// `--connect-to`
    ConnectTo,
    /// `--upstream-ca`
    UpstreamCa,
    /// `--upstream-http`
    UpstreamHttp,
    /// `--upstream-proxy`
    UpstreamProxy,
    /// `--no-upstream-proxy`
    NoUpstreamProxy,
    /// `--connect-timeout`
    ConnectTimeout,
    /// `--response-timeout`
    ResponseTimeout,
    /// `--token-timeout`
    TokenTimeout,
    /// `--idle-timeout`
    IdleTimeout,
    /// `--drain-timeout`
    DrainTimeout,
    /// `--max-connections`
    MaxConnections,
    /// `--max-idle-connections`
    MaxIdleConnections,
    /// `--max-memory`
    MaxMemory,
    /// `--workers`
    Workers,
    /// `--sandbox`
    Sandbox,
    /// `--log-format`
    LogFormat,
    /// `--log-level`
    LogLevel,
    /// `--access-log`
    AccessLog,
    /// `--quitquitquit`
    Quitquitquit,
}

/// How often an option may be given, and what a file writes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// One text.
    Value,
    /// One text, of which `off` is one: a file may write `false`.
    ValueOrOff,
    /// `true` or `false`.
    Switch,
    /// A list of texts.
    List,
    /// A list of texts or mappings.
    Entries,
}

// === impl OptionKey ===

impl OptionKey {
    /// Every option.
    pub const ALL: [Self; 35] = [
        Self::Proxy,
        Self::Route,
        Self::Rule,
        Self::Unmatched,
        Self::MetadataAccess,
        Self::Intercept,
        Self::CaDir,
        Self::Discover,
        Self::Credentials,
        Self::ImpersonateServiceAccount,
        Self::TrustCredentialUrl,
        Self::Admin,
        Self::ProxyAuth,
        Self::AllowNonLoopback,
        Self::AllowedHost,
        Self::Placeholder,
        Self::ConnectTo,
        Self::UpstreamCa,
        Self::UpstreamHttp,
        Self::UpstreamProxy,
        Self::NoUpstreamProxy,
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::TokenTimeout,
        Self::IdleTimeout,
        Self::DrainTimeout,
        Self::MaxConnections,
        Self::MaxIdleConnections,
        Self::MaxMemory,
        Self::Workers,
        Self::Sandbox,
        Self::LogFormat,
        Self::LogLevel,
        Self::AccessLog,
        Self::Quitquitquit,
    ];

    /// The flag, without its dashes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Unmatched => "unmatched",
            Self::MetadataAccess => "metadata-access",
            Self::Intercept => "intercept",
            Self::CaDir => "ca-dir",
            Self::Discover => "discover",
            Self::Credentials => "credentials",
            Self::ImpersonateServiceAccount => "impersonate-service-account",
            Self::TrustCredentialUrl => "trust-credential-url",
            Self::Admin => "admin",
            Self::ProxyAuth => "proxy-auth",
            Self::AllowNonLoopback => "allow-non-loopback",
            Self::AllowedHost => "allowed-host",
            Self::Placeholder => "placeholder",
            Self::ConnectTo => "connect-to",
            Self::UpstreamCa => "upstream-ca",
            Self::UpstreamHttp => "upstream-http",
            Self::UpstreamProxy => "upstream-proxy",
            Self::NoUpstreamProxy => "no-upstream-proxy",
            Self::ConnectTimeout => "connect-timeout",
            Self::ResponseTimeout => "response-timeout",
            Self::TokenTimeout => "token-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::DrainTimeout => "drain-timeout",
            Self::MaxConnections => "max-connections",
            Self::MaxIdleConnections => "max-idle-connections",
            Self::MaxMemory => "max-memory",
            Self::Workers => "workers",
            Self::Sandbox => "sandbox",
            Self::LogFormat => "log-format",
            Self::LogLevel => "log-level",
            Self::AccessLog => "access-log",
            Self::Quitquitquit => "quitquitquit",
        }
    }

    /// The environment variable.
    pub fn variable(self) -> String {
        format!(
            "SIDENTITY_{}",
            self.as_str().replace('-', "_").to_ascii_uppercase()
        )
    }

    /// The option of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|option| option.as_str() == name)
    }

    pub(super) const fn kind(self) -> ValueKind {
        match self {
            Self::Proxy
            | Self::Admin
            | Self::ProxyAuth
            | Self::Discover
            | Self::ResponseTimeout
            | Self::Sandbox
            | Self::UpstreamProxy
            | Self::AccessLog => ValueKind::ValueOrOff,
            Self::Intercept | Self::AllowNonLoopback | Self::Quitquitquit => ValueKind::Switch,
            Self::AllowedHost
            | Self::Placeholder
            | Self::ConnectTo
            | Self::NoUpstreamProxy
            | Self::TrustCredentialUrl
            | Self::UpstreamCa => ValueKind::List,
            Self::Route | Self::Rule => ValueKind::Entries,
            Self::Unmatched
            | Self::MetadataAccess
            | Self::CaDir
            | Self::Credentials
            | Self::ImpersonateServiceAccount
            | Self::UpstreamHttp
            | Self::ConnectTimeout
            | Self::TokenTimeout
            | Self::IdleTimeout
            | Self::DrainTimeout
            | Self::MaxConnections
            | Self::MaxIdleConnections
            | Self::MaxMemory
            | Self::Workers
            | Self::LogFormat
            | Self::LogLevel => ValueKind::Value,
        }
    }
}
