//! Logs each panic as one line.

use std::panic::{self, PanicHookInfo};

use crate::diagnostics::LogEntry;

/// Writes panics to the log instead of stderr.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(tracing::field::display);
        tracing::error!(
            location,
            help = LogEntry::Panicked.page(),
            "panicked: {}",
            message(info)
        );
    }));
}

/// Withholds formatted messages: those of `unwrap` and slicing quote their input, which may be part of a request.
fn message(info: &PanicHookInfo<'_>) -> &'static str {
    info.payload()
        .downcast_ref::<&'static str>()
        .unwrap_or(&"(the message may quote a request and is withheld)")
}
