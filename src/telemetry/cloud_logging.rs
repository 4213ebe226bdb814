//! The JSON format: one object per line, with the keys that Cloud Logging reads into its log entry.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::escape::Printable;

/// Fields with this prefix become members of `httpRequest`.
pub(super) const HTTP_REQUEST: &str = "httpRequest.";

/// The field of a trace's id. The line has its resource name if the project is known.
pub(super) const TRACE: &str = "logging.googleapis.com/trace";

/// Formats the event as a line, with its newline.
pub(super) fn line(
    event: &Event<'_>,
    target: Option<&str>,
    now: SystemTime,
    project: Option<&str>,
) -> String {
    let mut fields = JsonMembers {
        line: String::with_capacity(512),
        request: String::new(),
        project,
    };
    // Writing to a String fails only if a value was cut.
    let _ = write!(
        fields.line,
        r#"{{"severity":"{}","time":"{}""#,
        severity(event.metadata().level()),
        humantime::format_rfc3339_micros(now),
    );
    event.record(&mut fields);
    if let Some(target) = target {
        fields.member("target", format_args!("{target}"));
    }
    let JsonMembers {
        mut line, request, ..
    } = fields;
    if let Some(members) = request.strip_prefix(',') {
        let _ = write!(line, r#","httpRequest":{{{members}}}"#);
    }
    line.push_str("}\n");
    line
}

fn severity(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The members of an object, each after a comma.
struct JsonMembers<'a> {
    line: String,
    request: String,
    project: Option<&'a str>,
}

impl JsonMembers<'_> {
    /// Writes the key, and returns the text to which its value is added.
    fn key(&mut self, name: &str) -> &mut String {
        let (line, name) = match name.strip_prefix(HTTP_REQUEST) {
            Some(name) => (&mut self.request, name),
            None => (&mut self.line, name),
        };
        line.push_str(",\"");
        let _ = Printable::quoted(line).write_str(name);
        // These names are reserved: a second member of the same name would hide the first.
        if matches!(name, "severity" | "time" | "timestamp" | "httpRequest") {
            line.push('_');
        }
        line.push_str("\":");
        line
    }

    fn member(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let project = self.project.filter(|_| name == TRACE);
        let line = self.key(name);
        line.push('"');
        let mut text = Printable::quoted(line);
        let _ = match project {
            Some(project) => write!(text, "projects/{project}/traces/{value}"),
            None => text.write_fmt(value),
        };
        line.push('"');
    }

    fn literal(&mut self, name: &str, value: impl fmt::Display) {
        let line = self.key(name);
        let _ = write!(line, "{value}");
    }
}

impl Visit for JsonMembers<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no form for other numbers.
        if value.is_finite() {
            self.literal(field.name(), value);
        } else {
            self.member(field.name(), format_args!("{value}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field.name(), format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
