//! The effective configuration, as a file that `--config` takes again.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Access, AccessLog, Config, HttpVersion, LogFormat, LogLevel, Route};
use crate::policy::{Options, Rule};

/// Shows a [`Config`] as YAML. The password of `--proxy-auth` is left out, and a comment says so; what only the
/// environment can say stands in comments.
#[derive(Debug)]
pub struct Yaml<'a>(pub &'a Config);

// === impl Yaml ===

impl fmt::Display for Yaml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        listeners(f, config)?;
        field(f, 0, "discover", if config.discover { "on" } else { "off" })?;
        list(f, "allowed_host", config.allowed_hosts.iter())?;
        list(f, "placeholder", config.placeholders.iter())?;
        entries(f, "routes", &config.routes, route)?;
        entries(f, "rules", &config.rules, rule)?;
        upstream(f, config)?;
        limits(f, config)?;
        environment(f, config)
    }
}

fn listeners(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let or_off = |listen: Option<(std::net::SocketAddr, bool)>| match listen {
        None => "off".to_owned(),
        Some((address, true)) => address.port().to_string(),
        Some((address, false)) => address.to_string(),
    };
    f.write_str("proxy:\n")?;
    field(
        f,
        1,
        "listen",
        or_off(config.proxy.as_ref().map(|p| (p.listen, p.on_ipv6))),
    )?;
    field(f, 1, "unmatched", access(config.unmatched))?;
    field(f, 1, "metadata_access", access(config.metadata_access))?;
    field(f, 1, "intercept", config.intercept.is_some())?;
    if let Some(folder) = config.intercept.as_ref().and_then(|i| i.ca_dir.as_ref()) {
        field(f, 1, "ca_dir", folder.display())?;
    }
    if config
        .proxy
        .as_ref()
        .is_some_and(|proxy| proxy.auth.is_some())
    {
        f.write_str("  # auth: it is set, and a secret: not shown\n")?;
    }
    f.write_str("admin:\n")?;
    let admin = config.admin.map(|admin| (admin, config.admin_on_ipv6));
    field(f, 1, "listen", or_off(admin))?;
    field(f, 1, "quitquitquit", config.quitquitquit)?;
    field(f, 0, "allow_non_loopback", config.allow_non_loopback)
}

fn route(f: &mut fmt::Formatter<'_>, route: &Route) -> fmt::Result {
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

fn rule(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    writeln!(f, "  - host: {}", Scalar(&rule.pattern.to_string()))?;
    options(f, &rule.options)
}

fn options(f: &mut fmt::Formatter<'_>, options: &Options) -> fmt::Result {
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

fn upstream(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let upstream = &config.upstream;
    list(f, "connect_to", upstream.connect_to.iter())?;
    list(
        f,
        "upstream_ca",
        upstream.ca_files.iter().map(|file| file.display()),
    )?;
    field(f, 0, "upstream_http", http_version(upstream.http))?;
    field(f, 0, "connect_timeout", time(upstream.connect_timeout))?;
    let response = config
        .response_timeout
        .map_or_else(|| "off".to_owned(), time);
    field(f, 0, "response_timeout", response)?;
    field(f, 0, "token_timeout", time(config.token_timeout))?;
    field(f, 0, "idle_timeout", time(upstream.idle_timeout))?;
    field(f, 0, "drain_timeout", time(config.drain_timeout))
}

fn limits(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    field(f, 0, "max_connections", config.max_connections)?;
    field(f, 0, "max_idle_connections", config.upstream.max_idle)?;
    field(f, 0, "max_memory", size(config.max_memory))?;
    field(f, 0, "workers", config.workers)?;
    field(f, 0, "sandbox", if config.sandbox { "auto" } else { "off" })?;
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
    field(f, 0, "log_format", format)?;
    field(f, 0, "log_level", level)?;
    field(f, 0, "access_log", access)
}

fn environment(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    let metadata = &config.metadata;
    let off = if metadata.disabled {
        ", not asked (NO_GCE_CHECK)"
    } else {
        ""
    };
    writeln!(
        f,
        "# metadata server: {}:{}{off}",
        metadata.host, metadata.port
    )?;
    if let Some(Ok(project)) = config.quota_project.as_ref().map(|p| p.to_str()) {
        writeln!(f, "# quota project: {project}")?;
    }
    if let Some(universe) = &config.universe {
        writeln!(f, "# universe domain: {universe}")?;
    }
    if let Some(file) = &config.upstream.system_ca_file {
        writeln!(f, "# system roots: {:?}", file.display().to_string())?;
    }
    Ok(())
}

fn field(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    key: &str,
    value: impl fmt::Display,
) -> fmt::Result {
    let indent = depth * 2;
    writeln!(f, "{:indent$}{key}: {}", "", Scalar(&value.to_string()))
}

fn list(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    items: impl ExactSizeIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    if items.len() == 0 {
        return Ok(());
    }
    writeln!(f, "{key}:")?;
    for item in items {
        writeln!(f, "  - {}", Scalar(&item.to_string()))?;
    }
    Ok(())
}

fn entries<T>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    items: &[T],
    write: fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "{key}:")?;
    items.iter().try_for_each(|item| write(f, item))
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
            && !matches!(
                &*text.to_ascii_lowercase(),
                "null" | "y" | "n" | "yes" | "no" | "on"
            )
    }
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
