//! A panic is one line of the log.

use std::panic::{self, PanicHookInfo};

/// From now on panics go to the log, in its format, and nowhere else.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(tracing::field::display);
        tracing::error!(location, "panicked: {}", message(info));
    }));
}

/// A message that was put together at run time is withheld: `unwrap` and slicing quote the bytes that they stumbled on,
/// and these may be a request's.
fn message(info: &PanicHookInfo<'_>) -> &'static str {
    info.payload()
        .downcast_ref::<&'static str>()
        .unwrap_or(&"(the message may quote a request and is withheld)")
}
