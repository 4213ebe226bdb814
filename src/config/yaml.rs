//! The effective configuration, as a file that `--config` takes again.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Access, AccessLog, Config, HttpVersion, LogFormat, LogLevel, Route, UpstreamProxy};
use crate::policy::{Options, Policy, Principal, Rule, Settings};

/// Shows a [`Config`] as YAML. The passwords of `--proxy-auth` and `--upstream-proxy` are left out, and a comment says so; what only the
/// environment can say stands in comments.
#[derive(Debug)]
pub struct Yaml<'a> {
    config: &'a Config,
    /// What equals it is left out.
    defaults: Option<&'a Config>,
}

/// What is printed where nothing differs; a file of nothing but this is one that changes nothing.
const NOTHING: &str = "# every option has its default: sidentity check --all prints them\n";

/// A key with its value, or a comment: whole lines.
#[derive(PartialEq)]
struct Item {
    /// The mapping that it stands in.
    group: Option<&'static str>,
    text: String,
}

/// Collects items in their order.
#[derive(Default)]
struct Items {
    items: Vec<Item>,
    group: Option<&'static str>,
}

// === impl Yaml ===

impl<'a> Yaml<'a> {
    /// Every option.
    pub const fn all(config: &'a Config) -> Self {
        Self {
            config,
            defaults: None,
        }
    }

    /// The options that differ from `defaults`.
    pub const fn differing(config: &'a Config, defaults: &'a Config) -> Self {
        Self {
            config,
            defaults: Some(defaults),
        }
    }
}

impl fmt::Display for Yaml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = self.defaults.map(items).transpose()?.unwrap_or_default();
        let mut group = None;
        let mut printed = false;
        for item in items(self.config)? {
            if usual.contains(&item) {
                continue;
            }
            if item.group != group
                && let Some(name) = item.group
            {
                writeln!(f, "{name}:")?;
            }
            group = item.group;
            printed = true;
            f.write_str(&item.text)?;
        }
        if printed {
            Ok(())
        } else {
            f.write_str(NOTHING)
        }
    }
}

fn items(config: &Config) -> Result<Vec<Item>, fmt::Error> {
    let mut f = Items::default();
    listeners(&mut f, config)?;
    f.field("discover", if config.discover { "on" } else { "off" })?;
    f.list("allowed_host", config.allowed_hosts.iter())?;
    f.field("credentials", &config.credentials.mode)?;
    f.list(
        "trust_credential_url",
        config.credentials.trusted_urls.iter(),
    )?;
    match &config.impersonate {
        Some(chain) => f.field("impersonate_service_account", chain)?,
        None => f.add("impersonate_service_account: null\n".to_owned()),
    }
    f.list("placeholder", config.placeholders.iter())?;
    f.entries("routes", &config.routes, route)?;
    f.entries("rules", &config.rules, rule)?;
    upstream(&mut f, config)?;
    limits(&mut f, config)?;
    environment(&mut f, config);
    Ok(f.items)
}

fn listeners(f: &mut Items, config: &Config) -> fmt::Result {
    let or_off = |listen: Option<(std::net::SocketAddr, bool)>| match listen {
        None => "off".to_owned(),
        Some((address, true)) => address.port().to_string(),
        Some((address, false)) => address.to_string(),
    };
    f.group = Some("proxy");
    let proxy = config.proxy.as_ref();
    f.field("listen", or_off(proxy.map(|p| (p.listen, p.on_ipv6))))?;
    f.field("unmatched", access(config.unmatched))?;
    f.field("metadata_access", access(config.metadata_access))?;
    f.field("intercept", config.intercept.is_some())?;
    match config.intercept.as_ref().and_then(|i| i.ca_dir.as_ref()) {
        Some(folder) => f.field("ca_dir", folder.display())?,
        None => f.add("  ca_dir: null\n".to_owned()),
    }
    if proxy.is_some_and(|proxy| proxy.auth.is_some()) {
        f.add("  # auth: it is set, and a secret: not shown\n".to_owned());
    } else {
        f.field("auth", "off")?;
    }
    f.group = Some("admin");
    let admin = config.admin.map(|admin| (admin, config.admin_on_ipv6));
    f.field("listen", or_off(admin))?;
    f.field("quitquitquit", config.quitquitquit)?;
    f.group = None;
    f.field("allow_non_loopback", config.allow_non_loopback)
}

fn route(f: &mut String, route: &Route) -> fmt::Result {
    writeln!(f, "  - listen: {}", Scalar(&route.name))?;
    field(f, 2, "upstream", route.upstream_url())?;
    if let Some(http) = route.http {
        field(f, 2, "http", http_version(http))?;
    }
    if let Some(mode) = route.mode {
        // In quotes, for a number with a leading zero is another one to some readers of YAML.
        writeln!(f, "    mode: \"{mode:04o}\"")?;
    }
    options(f, &route.options)
}

fn rule(f: &mut String, rule: &Rule) -> fmt::Result {
    writeln!(f, "  - host: {}", Scalar(&rule.pattern.to_string()))?;
    options(f, &rule.options)
}

fn options(f: &mut String, options: &Options) -> fmt::Result {
    if let Some(credential) = options.credential {
        field(f, 2, "credential", credential)?;
    }
    if let Some(audience) = &options.audience {
        field(f, 2, "audience", audience)?;
    }
    if !options.scopes.is_empty() {
        f.write_str("    scopes:\n")?;
        for scope in &options.scopes {
            writeln!(f, "      - {}", Scalar(scope))?;
        }
    }
    if let Some(header) = options.header {
        field(f, 2, "header", header)?;
    }
    if let Some(existing) = options.existing {
        field(f, 2, "existing", existing)?;
    }
    if let Some(account) = &options.account {
        field(f, 2, "account", account)?;
    }
    if let Some(target) = &options.impersonate {
        field(f, 2, "impersonate", target)?;
    }
    if !options.delegates.is_empty() {
        f.write_str("    delegates:\n")?;
        for delegate in &options.delegates {
            writeln!(f, "      - {}", Scalar(delegate))?;
        }
    }
    if let Some(subject) = &options.subject {
        field(f, 2, "subject", subject)?;
    }
    if options.jwt {
        field(f, 2, "token", "jwt")?;
    }
    if let Some(Ok(project)) = options.quota_project.as_ref().map(|p| p.to_str()) {
        field(f, 2, "quota_project", project)?;
    }
    if let Some(scheme) = options.scheme {
        field(f, 2, "scheme", scheme)?;
    }
    if options.plaintext {
        field(f, 2, "plaintext", "allow")?;
    }
    Ok(())
}

fn upstream(f: &mut Items, config: &Config) -> fmt::Result {
    let upstream = &config.upstream;
    f.list("connect_to", upstream.connect_to.iter())?;
    f.list(
        "upstream_ca",
        upstream.ca_files.iter().map(|file| file.display()),
    )?;
    f.field("upstream_http", http_version(upstream.http))?;
    upstream_proxy(f, upstream.proxy.as_deref())?;
    f.field("connect_timeout", time(upstream.connect_timeout))?;
    let response = config
        .response_timeout
        .map_or_else(|| "off".to_owned(), time);
    f.field("response_timeout", response)?;
    f.field("token_timeout", time(config.token_timeout))?;
    f.field("idle_timeout", time(upstream.idle_timeout))?;
    f.field("drain_timeout", time(config.drain_timeout))
}

fn upstream_proxy(f: &mut Items, proxy: Option<&UpstreamProxy>) -> fmt::Result {
    let Some(proxy) = proxy else {
        f.field("upstream_proxy", "off")?;
        return f.list("no_upstream_proxy", [""; 0].iter());
    };
    f.field("upstream_proxy", &proxy.egress)?;
    if proxy.authorization.is_some() {
        f.add("# upstream_proxy: its credentials are set, and a secret: not shown\n".to_owned());
    }
    f.list("no_upstream_proxy", proxy.egress.no_proxy.entries())
}

fn limits(f: &mut Items, config: &Config) -> fmt::Result {
    f.field("max_connections", config.max_connections)?;
    f.field("max_idle_connections", config.upstream.max_idle)?;
    f.field("max_memory", size(config.max_memory))?;
    f.field("workers", config.workers)?;
    f.field("sandbox", if config.sandbox { "auto" } else { "off" })?;
    let format = match config.log.format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let level = match config.log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let access = match config.log.access {
        AccessLog::Off => "off",
        AccessLog::Errors => "errors",
        AccessLog::All => "all",
    };
    f.field("log_format", format)?;
    f.field("log_level", level)?;
    f.field("access_log", access)
}

/// Who impersonates whom.
fn chains(f: &mut Items, config: &Config) {
    let name = config.credentials.credential_name();
    let holder = name.holder_or_default();
    let settings = Settings {
        impersonate: config.impersonate.clone(),
        ..Settings::default()
    };
    let policy = Policy::new(config.rules.clone(), settings);
    let global = policy.default_principal();
    if *global != Principal::Attached {
        f.add(format!("# tokens are of {}\n", global.name_of(holder)));
    }
    for (rule, principal) in policy.other_identities() {
        f.add(format!(
            "# tokens of {rule} are of {}\n",
            principal.name_of(holder)
        ));
    }
}

fn environment(f: &mut Items, config: &Config) {
    if config.credentials.file().is_some() {
        f.add(format!("# tokens come from {}\n", config.credentials));
        chains(f, config);
    }
    let metadata = &config.metadata;
    let off = if metadata.disabled {
        ", not asked (NO_GCE_CHECK)"
    } else {
        ""
    };
    let (host, port) = (&metadata.host, metadata.port);
    f.add(format!("# metadata server: {host}:{port}{off}\n"));
    if let Some(Ok(project)) = config.quota_project.as_ref().map(|p| p.to_str()) {
        f.add(format!("# quota project: {project}\n"));
    }
    if let Some(universe) = &config.universe {
        f.add(format!("# universe domain: {universe}\n"));
    }
    if let Some(file) = &config.upstream.system_ca_file {
        let file = file.display().to_string();
        f.add(format!("# system roots: {file:?}\n"));
    }
}

// === impl Items ===

impl Items {
    fn add(&mut self, text: String) {
        self.items.push(Item {
            group: self.group,
            text,
        });
    }

    fn field(&mut self, key: &str, value: impl fmt::Display) -> fmt::Result {
        let mut text = String::new();
        field(&mut text, usize::from(self.group.is_some()), key, value)?;
        self.add(text);
        Ok(())
    }

    fn list(
        &mut self,
        key: &str,
        items: impl ExactSizeIterator<Item = impl fmt::Display>,
    ) -> fmt::Result {
        let mut text = list_head(key, items.len());
        for item in items {
            writeln!(text, "  - {}", Scalar(&item.to_string()))?;
        }
        self.add(text);
        Ok(())
    }

    fn entries<T>(
        &mut self,
        key: &str,
        items: &[T],
        write: fn(&mut String, &T) -> fmt::Result,
    ) -> fmt::Result {
        let mut text = list_head(key, items.len());
        items.iter().try_for_each(|item| write(&mut text, item))?;
        self.add(text);
        Ok(())
    }
}

/// An empty list is written out, so that every option is there.
fn list_head(key: &str, items: usize) -> String {
    match items {
        0 => format!("{key}: []\n"),
        _ => format!("{key}:\n"),
    }
}

fn field(f: &mut String, depth: usize, key: &str, value: impl fmt::Display) -> fmt::Result {
    let indent = depth * 2;
    writeln!(f, "{:indent$}{key}: {}", "", Scalar(&value.to_string()))
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Pass => "pass",
        Access::Deny => "deny",
    }
}

fn http_version(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Auto => "auto",
        HttpVersion::Http1 => "1",
        HttpVersion::Http2 => "2",
    }
}

/// In the largest binary unit that gives a whole number.
fn size(bytes: usize) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    UNITS
        .iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || bytes.to_string(),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

/// Without the spaces of the long form, as people write it.
fn time(time: Duration) -> String {
    if time.is_zero() {
        return "0s".to_owned();
    }
    humantime::format_duration(time)
        .to_string()
        .replace(' ', "")
}

/// A text as a YAML scalar: plain where no reader can take it for anything else, else in double quotes.
struct Scalar<'a>(&'a str);

// === impl Scalar ===

impl Scalar<'_> {
    fn is_plain(&self) -> bool {
        let text = self.0;
        let harmless = |b: u8| b.is_ascii_alphanumeric() || b"/._@:+-".contains(&b);
        let first = text.bytes().next();
        first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/')
            && text.bytes().all(harmless)
            && !text.ends_with(':')
            && (text.bytes().all(|b| b.is_ascii_digit()) || !is_number(text))
            && !matches!(
                &*text.to_ascii_lowercase(),
                "null" | "y" | "n" | "yes" | "no" | "on"
            )
    }
}

/// A text that readers of YAML may take for a number in another form than decimal digits: `1e310`, `0x1f`.
fn is_number(text: &str) -> bool {
    let radix = text.starts_with("0x") || text.starts_with("0o") || text.starts_with("0b");
    radix || text.parse::<f64>().is_ok()
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => f.write_char(c)?,
                // YAML 1.2, 5.7: eight hexadecimal digits name any character.
                c => write!(f, "\\U{:08X}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}
