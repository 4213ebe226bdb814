//! The values of options: how each text is parsed, and how each value is printed.

pub(super) mod auth;
pub(super) mod connect_to;
pub(super) mod duration;
pub(super) mod listen;
pub(super) mod size;

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};

use super::diagnostic::quote;
use super::env::Env;
use super::{ADMIN_PORT, AccessLog, HttpVersion, LogFormat, LogLevel, PassOrDeny};
use crate::credentials::{Mode, TrustedUrl};
use crate::destination::Host;
use crate::policy::Placeholders;

/// The words of an option, each with its value.
pub(super) type Words<T> = &'static [(&'static str, T)];

pub(super) const ACCESS: Words<PassOrDeny> =
    &[("pass", PassOrDeny::Pass), ("deny", PassOrDeny::Deny)];

pub(super) const ACCESS_LOG: Words<AccessLog> = &[
    ("off", AccessLog::Off),
    ("errors", AccessLog::Errors),
    ("all", AccessLog::All),
];

pub(super) const HTTP_VERSION: Words<HttpVersion> = &[
    ("auto", HttpVersion::Auto),
    ("1", HttpVersion::Http1),
    ("2", HttpVersion::Http2),
];

/// The formats in addition to `auto`.
pub(super) const LOG_FORMAT: Words<LogFormat> =
    &[("json", LogFormat::Json), ("text", LogFormat::Text)];

pub(super) const LOG_LEVEL: Words<LogLevel> = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

pub(super) const SANDBOX: Words<bool> = &[("auto", true), ("off", false)];

/// Parses one of a few words.
pub(super) fn word<T: Copy>(text: &str, words: Words<T>) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{} must be one of {}", quote(text), words.join(", "))
    })
}

/// Returns the word for a value.
pub(super) fn named<T: PartialEq>(value: &T, words: Words<T>) -> String {
    let found = words.iter().find(|(_, known)| known == value);
    found.map_or("", |(word, _)| word).to_owned()
}

/// Parses `off`, or what `parse` does.
pub(super) fn or_off<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| match text {
        "off" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// Parses true or false, in the spellings of YAML and shells.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(format!("{} must be true or false", quote(text))),
    }
}

/// Parses a switch, or `auto`, which is `None`.
pub(super) fn discover(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        text => switch(text)
            .map(Some)
            .map_err(|_| format!("{} must be one of auto, on, off", quote(text))),
    }
}

/// Parses a format. `auto` is text if stderr is a terminal, otherwise JSON, because log collectors need one object per
/// line.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" if std::io::stderr().is_terminal() => Ok(LogFormat::Text),
        "auto" => Ok(LogFormat::Json),
        text => word(text, LOG_FORMAT)
            .map_err(|_| format!("{} must be one of auto, json, text", quote(text))),
    }
}

/// Parses a number from 1 to `most`.
pub(super) fn number(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("{} must be a number from 1 to {most}", quote(text)))
}

/// Parses a host of `--allowed-host`.
pub(super) fn host(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|_| {
        format!(
            "{} must be a host name or address without a port",
            quote(text)
        )
    })
}

pub(super) fn placeholder(text: &str) -> Result<String, String> {
    Placeholders::parse(text).map_err(|why| format!("{} {why}", quote(text)))
}

/// Parses `auto`, `metadata`, `adc`, or the path of a file.
pub(super) fn credentials_mode(text: &str) -> Result<Mode, String> {
    Mode::parse(text).ok_or_else(|| "write auto, metadata, adc or the path of a file".to_owned())
}

/// Parses a URL of `--trust-credential-url`. The error does not repeat it, because it may contain a password.
pub(super) fn trusted_url(text: &str) -> Result<TrustedUrl, String> {
    TrustedUrl::parse(text).map_err(str::to_owned)
}

/// Returns the number of CPUs. The standard library reads the cgroup, so a container with one CPU of a large machine
/// has one.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Returns the default of `--admin`. On Cloud Run, probes and scrapers call from outside the container, and no other
/// client can reach the port.
pub(super) fn default_admin(env: &Env) -> SocketAddr {
    let variables = ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"];
    let cloud_run = variables.iter().any(|variable| env.is_set(variable));
    let address = match cloud_run {
        true => Ipv4Addr::UNSPECIFIED,
        false => Ipv4Addr::LOCALHOST,
    };
    (address, ADMIN_PORT).into()
}
