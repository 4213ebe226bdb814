//! The human-readable text format: `12:34:56.789 INFO  message key=value`, with the time in UTC.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::cloud_logging::HTTP_REQUEST;
use super::escape::Printable;
use crate::diagnostics::is_hidden;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Formats the event as a line, with its newline.
pub(super) fn line(
    event: &Event<'_>,
    target: Option<&str>,
    now: SystemTime,
    colour: bool,
) -> String {
    let (paint, dim, plain) = match colour {
        true => (colour_of(event.metadata().level()), DIM, PLAIN),
        false => ("", "", ""),
    };
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since_epoch.as_secs() % 86_400, since_epoch.subsec_millis());
    let mut fields = TextFields {
        line: String::with_capacity(256),
        request: String::new(),
        message: String::new(),
        dim,
        plain,
    };
    event.record(&mut fields);
    if let Some(target) = target {
        fields.pair("target", format_args!("{target}"));
    }
    format!(
        "{dim}{:02}:{:02}:{:02}.{millis:03}{plain} {paint}{:<5}{plain} {}{}{}\n",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        event.metadata().level().as_str(),
        fields.message,
        fields.line,
        fields.request,
    )
}

fn colour_of(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[34m",
    }
}

/// The pairs, each after a space. Sizes and similar fields come last, after error and advice.
struct TextFields {
    line: String,
    request: String,
    message: String,
    dim: &'static str,
    plain: &'static str,
}

impl TextFields {
    fn pair(&mut self, full: &str, value: fmt::Arguments<'_>) {
        let Self {
            line,
            request,
            dim,
            plain,
            ..
        } = self;
        let (line, name) = match full.strip_prefix(HTTP_REQUEST) {
            // The message already has these values.
            Some("requestMethod" | "requestUrl" | "status" | "latency") => return,
            Some(name) => (request, name),
            None => (
                line,
                full.strip_prefix("logging.googleapis.com/").unwrap_or(full),
            ),
        };
        let _ = write!(line, " {dim}");
        let _ = Printable::bare(line).write_str(name);
        let _ = write!(line, "={plain}");
        let value = value.to_string();
        let plain = |c: char| !c.is_whitespace() && !is_hidden(c) && !matches!(c, '"' | '=' | '\\');
        if !value.is_empty() && value.chars().all(plain) {
            let _ = Printable::bare(line).write_str(&value);
        } else {
            line.push('"');
            let _ = Printable::quoted(line).write_str(&value);
            line.push('"');
        }
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }
}

impl TextFields {
    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            let _ = Printable::bare(&mut self.message).write_fmt(value);
        } else {
            self.pair(field.name(), value);
        }
    }
}

#[cfg(test)]
mod tests;
