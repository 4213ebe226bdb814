//! Writes each event as one line with one call.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, dispatcher};

use super::stderr::PatientStderr;
use super::{cloud_logging, panics, text};
use crate::config::{Log, LogFormat, LogLevel};
use crate::diagnostics::LogEntry;
use crate::lock::lock;

/// Writes this crate's events from the configured level up. Events of dependencies are written from warning up,
/// whatever is configured, because HTTP and TLS libraries log header values, and these include tokens.
pub struct Logger {
    settings: ArcSwap<LogSettings>,
    colour: bool,
    project: OnceLock<String>,
    out: Mutex<Box<dyn Write + Send>>,
    /// The number of lines that were lost and not reported.
    lost: Arc<AtomicU64>,
}

/// The settings that a reload may change.
#[derive(Debug)]
struct LogSettings {
    format: LogFormat,
    own: LevelFilter,
}

/// Sends the events and panics of the process to stderr. Only the first call has an effect.
pub fn init(log: &Log) {
    let stderr = io::stderr();
    // This is the convention of no-color.org for terminals, so there is no option for it.
    let colour =
        stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lost = Arc::new(AtomicU64::new(0));
    let logger = Logger {
        lost: lost.clone(),
        ..Logger::new(log, colour, PatientStderr::new(lost))
    };
    if tracing::subscriber::set_global_default(logger).is_ok() {
        panics::log_panics();
    }
}

/// Changes format and level, if [`init`] installed the logger.
pub(crate) fn adjust(log: &Log) {
    let found = dispatcher::get_default(|dispatch| {
        let logger = dispatch.downcast_ref::<Logger>();
        logger.is_some_and(|logger| {
            logger.settings.store(Arc::new(LogSettings::of(log)));
            true
        })
    });
    if found {
        // Call sites cache whether they are enabled.
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Sets the project id, which is part of a trace's resource name. Only the first call has an effect.
pub fn set_project(id: &str) {
    dispatcher::get_default(|dispatch| {
        if let Some(logger) = dispatch.downcast_ref::<Logger>() {
            let _ = logger.project.set(id.to_owned());
        }
    });
}

// === impl Logger ===

impl Logger {
    /// Creates a logger that writes each line to `out` with one call. `colour` is for the text format only.
    pub fn new(log: &Log, colour: bool, out: impl Write + Send + 'static) -> Self {
        Self {
            settings: ArcSwap::from_pointee(LogSettings::of(log)),
            colour,
            project: OnceLock::new(),
            out: Mutex::new(Box::new(out)),
            lost: Arc::default(),
        }
    }
}

// === impl LogSettings ===

impl LogSettings {
    fn of(log: &Log) -> Self {
        Self {
            format: log.format,
            own: match log.level {
                LogLevel::Error => LevelFilter::ERROR,
                LogLevel::Warn => LevelFilter::WARN,
                LogLevel::Info => LevelFilter::INFO,
                LogLevel::Debug => LevelFilter::DEBUG,
                LogLevel::Trace => LevelFilter::TRACE,
            },
        }
    }
}

impl Subscriber for Logger {
    /// Returns a result that may be cached, because only [`adjust`] changes whether a call site is enabled.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = self.settings.load().own;
        let limit = if is_own(metadata) {
            own
        } else {
            own.min(LevelFilter::WARN)
        };
        metadata.is_event() && *metadata.level() <= limit
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings.load().own)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let target = (!is_own(metadata)).then(|| metadata.target());
        // A clock before 1970 cannot be formatted.
        let now = SystemTime::now().max(UNIX_EPOCH);
        let line = match self.settings.load().format {
            LogFormat::Json => {
                let project = self.project.get().map(String::as_str);
                cloud_logging::line(event, target, now, project)
            }
            LogFormat::Text => text::line(event, target, now, self.colour),
        };
        // An error of the log cannot be logged.
        let _ = lock(&self.out).write_all(line.as_bytes());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let help = LogEntry::LinesLost.page();
            tracing::warn!(
                help,
                lost,
                "log lines were lost, because stderr was not read"
            );
        }
    }

    // Spans are not used.

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Returns whether the event is of this crate, by its module.
fn is_own(metadata: &Metadata<'_>) -> bool {
    let krate = env!("CARGO_CRATE_NAME");
    let own = |module: &str| {
        module
            .strip_prefix(krate)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    metadata.module_path().is_some_and(own)
}

#[cfg(test)]
pub(super) mod tests;
