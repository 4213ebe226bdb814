//! How a command ends.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Diagnostic;

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

/// The end of a command that failed.
#[derive(Debug)]
pub(super) struct Exit {
    status: u8,
    diagnostics: Vec<Diagnostic>,
}

// === impl Exit ===

impl Exit {
    pub(super) fn usage(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            status: USAGE,
            diagnostics,
        }
    }

    /// One argument is not what it should be.
    pub(super) fn misused(argument: &str, message: String) -> Self {
        Self::usage(vec![Diagnostic::new(argument, message)])
    }

    /// A status of its own, and why.
    pub(super) fn with(status: u8, message: String) -> Self {
        Self {
            status,
            diagnostics: vec![Diagnostic::new("error", message)],
        }
    }

    /// Another process's status, which has said for itself what is wrong.
    pub(super) const fn silent(status: u8) -> Self {
        Self {
            status,
            diagnostics: Vec::new(),
        }
    }

    /// A signal ended it.
    pub(super) fn signalled(number: u8) -> Self {
        Self {
            status: 128 + number,
            diagnostics: vec![Diagnostic::new("stopped", "a second signal: not drained")],
        }
    }

    /// A failure at run time.
    pub(super) fn failed(message: String) -> Self {
        Self::with(1, message)
    }

    pub(super) fn report(&self) -> ExitCode {
        self.diagnostics.iter().for_each(complain);
        ExitCode::from(self.status)
    }
}

/// Writes one line to stderr. Errors are ignored.
pub(super) fn complain(diagnostic: &Diagnostic) {
    let _ = writeln!(io::stderr(), "sidentity: {diagnostic}");
}
