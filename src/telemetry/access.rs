//! The access log: one event for each request, when it ends.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Version};
use tracing::Level;
use tracing::field;

use super::code::Code;
use super::trace::TraceContext;
use crate::config::AccessLog;
use crate::destination::Destination;
use crate::diagnostics::LogEntry;
use crate::error::{ErrorKind, Problem, Side};
use crate::policy::{Credential, TokenKey};

/// The facts of a request for the access log.
pub struct AccessRecord<'a> {
    /// The method; `None` if the request could not be parsed.
    pub method: Option<&'a Method>,
    /// The destination; `None` if the request had no unambiguous one.
    pub destination: Option<&'a Destination>,
    /// The result of the request.
    pub code: Code,
    /// The bytes of the request's body that were received.
    pub request_bytes: u64,
    /// The bytes of the response's body that were sent.
    pub response_bytes: u64,
    /// The time from the request's head to the end of the response.
    pub latency: Duration,
    /// The HTTP version of the app's connection.
    pub protocol: Version,
    /// The app's `User-Agent`.
    pub user_agent: Option<&'a HeaderValue>,
    /// The listener's name, as in the metrics.
    pub listener: &'a str,
    /// The credential that it carried; `None` before the decision.
    pub credential: Option<Credential>,
    /// The rule that decided.
    pub rule: Option<&'a str>,
    /// The token that it carried, if every request is logged.
    pub token: Option<Carried<'a>>,
    /// The error, if the sidecar answered itself.
    pub problem: Option<&'a Problem>,
    /// The trace of the request.
    pub trace: Option<TraceContext>,
}

/// A token that a request carried, without its value.
#[derive(Clone, Copy, Debug)]
pub struct Carried<'a> {
    /// The key of the token.
    pub(crate) key: &'a TokenKey,
    /// The e-mail address of its account, if it is known.
    pub(crate) account: Option<&'a str>,
    /// The scopes of an access token, if they are known.
    pub(crate) scopes: Option<&'a str>,
    /// The header that carried it.
    pub(crate) header: &'a HeaderName,
}

/// A destination as it may be shown: without user-info and query, which may contain passwords, keys and signatures.
#[derive(Clone, Copy)]
pub(crate) struct Redacted<'a>(pub &'a Destination);

/// Logs an event. The level must be a constant at its place in the code, so there is one place for each level.
macro_rules! write_event {
    ($level:expr, $record:ident) => {{
        let record: &AccessRecord<'_> = $record;
        let trace = record.trace.as_ref();
        tracing::event!(
            $level,
            {
                "httpRequest.requestMethod" = record.method.map(Method::as_str),
                "httpRequest.requestUrl" = record.url().map(field::display),
                "httpRequest.status" = record.code.status(),
                "httpRequest.requestSize" = field::display(record.request_bytes),
                "httpRequest.responseSize" = field::display(record.response_bytes),
                "httpRequest.userAgent" = record.user_agent.map(lossy).as_deref(),
                "httpRequest.latency" = field::display(Latency(record.latency)),
                "httpRequest.protocol" = protocol(record.protocol),
                "logging.googleapis.com/trace" = trace.map(|trace| field::display(trace.trace_id())),
                "logging.googleapis.com/spanId" = trace.and_then(TraceContext::span_id).map(field::display),
                "logging.googleapis.com/trace_sampled" = trace.map(TraceContext::sampled),
                listener = record.listener,
                credential = record.credential.map(Credential::as_str),
                rule = record.rule,
                account = record.token.and_then(|token| token.account),
                audience = record.token.and_then(|token| token.key.audience()),
                scopes = record.token.and_then(|token| token.scopes),
                header = record.token.map(|token| token.header.as_str()),
                error = record.problem.map(|problem| problem.kind().row().proxy_status),
                detail = record.problem.map(Problem::detail),
                advice = record.problem.map(Problem::advice),
                help = record.help(),
            },
            "{record}"
        );
    }};
}

/// Logs a request that ended, if this mode includes it.
///
/// [`AccessLog::Errors`] includes 4xx, 5xx and errors of the sidecar. It excludes cancelled requests, because otherwise
/// an app that cancels calls could fill the log.
pub fn access_log(mode: AccessLog, record: &AccessRecord<'_>) {
    match mode {
        AccessLog::Off => return,
        AccessLog::Errors if record.went_well() => return,
        AccessLog::Errors | AccessLog::All => {}
    }
    match record.level() {
        Level::ERROR => write_event!(Level::ERROR, record),
        Level::WARN => write_event!(Level::WARN, record),
        _ => write_event!(Level::INFO, record),
    }
}

// === impl AccessRecord ===

impl AccessRecord<'_> {
    fn went_well(&self) -> bool {
        let well = self.code.status().is_some_and(|status| status < 400);
        self.problem.is_none() && (well || self.code == Code::CANCELLED)
    }

    /// Returns the severity. ERROR: a fault of the sidecar or of a token source. WARNING: of the upstream, or a request
    /// that was refused. INFO: all others.
    fn level(&self) -> Level {
        match (self.problem.map(Problem::kind), self.code.status()) {
            // The caller cancelled the request and expects no answer.
            (_, None) if self.code == Code::CANCELLED => Level::INFO,
            // This is the challenge that a client waits for before it sends its credentials.
            (Some(ErrorKind::ProxyAuthRequired), _) => Level::INFO,
            (Some(kind), _) if kind.side() == Side::Internal => Level::ERROR,
            (Some(_), _) | (None, None | Some(500..)) => Level::WARN,
            (None, Some(_)) => Level::INFO,
        }
    }

    /// Returns the URL of the explanation. Lines that are neither a warning nor an error have none.
    fn help(&self) -> Option<&'static str> {
        let warning = || (self.level() == Level::WARN).then(|| LogEntry::UpstreamFailed.page());
        self.problem.map(Problem::page).or_else(warning)
    }

    /// Returns the URL, or for a tunnel its authority.
    fn url(&self) -> Option<impl fmt::Display + fmt::Debug> {
        self.destination.map(|destination| {
            if self.method == Some(&Method::CONNECT) {
                let origin = &destination.origin;
                format!("{}:{}", origin.host, origin.port)
            } else {
                Redacted(destination).to_string()
            }
        })
    }
}

/// The message: `GET https://example.com/path 503 in 0.123s`.
impl fmt::Display for AccessRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method.map_or("-", Method::as_str))?;
        match self.url() {
            Some(url) => write!(f, "{url}")?,
            None => f.write_str("-")?,
        }
        write!(f, " {} in {}", self.code, Latency(self.latency))
    }
}

impl fmt::Debug for AccessRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessRecord({self})")
    }
}

// === impl Redacted ===

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.origin.fmt(f)?;
        // The target of the whole server is an empty path in a URL (RFC 9112, 3.2.4).
        if self.0.path() != "*" {
            f.write_str(self.0.path())?;
        }
        match self.0.query() {
            Some(_) => f.write_str("?…"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Seconds as protobuf's JSON writes a duration: `0.123s`.
#[derive(Debug)]
struct Latency(Duration);

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole microseconds, because a float would add digits.
        let micros = self.0.as_micros();
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let fraction = format!("{micros:06}");
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{seconds}s"),
            fraction => write!(f, "{seconds}.{fraction}s"),
        }
    }
}

fn lossy(value: &HeaderValue) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
