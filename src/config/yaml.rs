//! The effective configuration, as a file that `--config` accepts.

use std::fmt::{self, Write};

use super::option_spec::{FileKey, Printed};
use super::options::OptionKey;
use super::value::{HTTP_VERSION, named};
use super::{Config, Route};
use crate::credentials::{hidden, is_credential};
use crate::policy::{Policy, Principal, Rule, RuleOptions, Settings};

/// Displays a [`Config`] as YAML that `--config` reads. Comments stand for the passwords of `--proxy-auth` and
/// `--upstream-proxy`, for placeholders that look like a credential, values that are computed on this
/// machine, and values that only the environment can set.
#[derive(Debug)]
pub struct Yaml<'a> {
    config: &'a Config,
    /// Options with the same value as here are omitted.
    defaults: Option<&'a Config>,
}

/// The text for a configuration that equals the defaults. It is a valid file that changes nothing.
const NOTHING: &str = "# every option has its default: sidentity check --all prints them\n";

/// A key with its value, or a comment: whole lines.
#[derive(PartialEq)]
struct Item {
    /// It is printed also if it equals the default, and is no difference.
    always: bool,
    /// The mapping that contains it.
    group: Option<&'static str>,
    /// The user wrote the value, and the default depends on the machine: such an item equals no default.
    explicit: bool,
    text: String,
}

/// Collects items in their order.
#[derive(Default)]
struct Items {
    items: Vec<Item>,
    group: Option<&'static str>,
    explicit: bool,
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
            if usual.contains(&item) && !item.always {
                continue;
            }
            if item.group != group
                && let Some(name) = item.group
            {
                writeln!(f, "{name}:")?;
            }
            group = item.group;
            printed |= !item.always;
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
    for option in OptionKey::ALL {
        let spec = option.spec();
        f.explicit = config.explicit.0.contains(option);
        let key = match spec.key {
            FileKey::Inside(group, key) => {
                f.group = Some(group);
                key
            }
            FileKey::Top | FileKey::AlsoInside(..) => {
                f.group = None;
                spec.name
            }
        };
        let key = key.replace('-', "_");
        let computed = spec.depends_on_machine() && !f.explicit;
        match (spec.setting.print)(config) {
            // A file with this value would fix it for another machine.
            Printed::Value(value) if computed && value != "auto" => {
                f.comment(&format!("{key}: {value} (computed on this machine)"));
            }
            Printed::Value(value) => f.field(&key, value)?,
            Printed::Noted(value, note) => {
                f.field(&key, value)?;
                f.comment(&format!("{key}: {note}"));
            }
            Printed::Null => f.add_line(&format!("{key}: null")),
            Printed::Secret(note) => f.comment(&format!("{key}: {note}")),
            Printed::List(items) => f.list(&key, &items)?,
            Printed::Routes => f.entries("routes", &config.routes, route)?,
            Printed::Rules => f.entries("rules", &config.rules, rule)?,
        }
    }
    f.explicit = false;
    environment(&mut f, config);
    Ok(f.items)
}

fn route(f: &mut String, route: &Route) -> fmt::Result {
    writeln!(f, "  - listen: {}", Scalar(&route.name))?;
    field(f, 2, "upstream", route.upstream_url())?;
    if let Some(http) = route.http {
        field(f, 2, "http", named(&http, HTTP_VERSION))?;
    }
    if let Some(mode) = route.mode {
        // Quoted, because some readers of YAML take a number with a leading zero for an octal one.
        writeln!(f, "    mode: \"{mode:04o}\"")?;
    }
    options(f, &route.options)
}

fn rule(f: &mut String, rule: &Rule) -> fmt::Result {
    writeln!(f, "  - host: {}", Scalar(&rule.pattern.to_string()))?;
    options(f, &rule.options)
}

fn options(f: &mut String, options: &RuleOptions) -> fmt::Result {
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

/// Comments on the accounts that tokens belong to.
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
        f.comment(&format!("tokens are of {}", global.name_of(holder)));
    }
    for (rule, principal) in policy.other_identities() {
        f.comment(&format!(
            "tokens of {rule} are of {}",
            principal.name_of(holder)
        ));
    }
}

fn environment(f: &mut Items, config: &Config) {
    if config.credentials.file().is_some() {
        f.comment(&format!("tokens come from {}", config.credentials));
        chains(f, config);
    } else if config.no_credentials().is_none() {
        let if_found = match config.credentials.is_certain() {
            true => "",
            false => ", if one answers",
        };
        // `check` calls no server.
        f.add_always(&format!(
            "tokens come from {}{if_found} (account and project: sidentity explain URL)",
            config.credentials
        ));
    }
    let metadata = &config.metadata;
    let off = if metadata.disabled {
        ", not asked (NO_GCE_CHECK)"
    } else {
        ""
    };
    let (host, port) = (&metadata.host, metadata.port);
    f.comment(&format!("metadata server: {host}:{port}{off}"));
    if let Some(Ok(project)) = config.quota_project.as_ref().map(|p| p.to_str()) {
        f.comment(&format!("quota project: {project}"));
    }
    if let Some(universe) = &config.universe {
        f.comment(&format!("universe domain: {universe}"));
    }
    if let Some(file) = &config.upstream.system_ca_file {
        let file = file.display().to_string();
        f.comment(&format!("system roots: {file:?}"));
    }
}

// === impl Items ===

impl Items {
    fn add(&mut self, text: String) {
        self.items.push(Item {
            always: false,
            group: self.group,
            explicit: self.explicit,
            text,
        });
    }

    /// Adds a comment that is always printed.
    fn add_always(&mut self, text: &str) {
        self.items.push(Item {
            always: true,
            group: None,
            explicit: self.explicit,
            text: format!("# {text}\n"),
        });
    }

    fn field(&mut self, key: &str, value: impl fmt::Display) -> fmt::Result {
        let mut text = String::new();
        field(&mut text, usize::from(self.group.is_some()), key, value)?;
        self.add(text);
        Ok(())
    }

    /// Adds a line to the open mapping.
    fn add_line(&mut self, line: &str) {
        let indent = if self.group.is_some() { "  " } else { "" };
        self.add(format!("{indent}{line}\n"));
    }

    fn comment(&mut self, text: &str) {
        let text = credential_name(text).unwrap_or(text);
        self.add_line(&format!("# {text}"));
    }

    fn list(&mut self, key: &str, items: &[String]) -> fmt::Result {
        let mut text = list_head(key, items.len());
        for item in items {
            match credential_name(item) {
                Some(name) => writeln!(text, "  # {name}")?,
                None => writeln!(text, "  - {}", Scalar(item))?,
            }
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

/// Returns what stands for a text that looks like a credential.
fn credential_name(text: &str) -> Option<&'static str> {
    hidden(text).filter(|_| is_credential(text))
}

/// Writes an empty list, so that every option is present.
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

/// A text as a YAML scalar: plain if every reader reads it as this text, otherwise in double quotes.
///
/// serde-saphyr's serializer is not used: it cannot write a comment instead of a secret value, and it quotes by other
/// rules, such as `off` and numbers.
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

/// Returns whether readers of YAML may read the text as a number in another form than decimal digits: `1e310`, `0x1f`.
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
