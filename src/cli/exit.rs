//! The exit status of a command, and its message.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{Diagnostic, Escaped};
use crate::diagnostics::LogEntry;

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;

/// The end of a command that failed.
#[derive(Debug)]
pub(super) struct Exit {
    status: u8,
    diagnostics: Vec<Diagnostic>,
    /// A line that is not a diagnostic: a label and a message.
    line: Option<(String, String)>,
}

/// Writes the output of a command to stdout. A reader such as `head` may close the pipe early, which is not an error.
/// `what` names the output in the message.
///
/// # Errors
///
/// Stdout cannot be written, for another reason than a closed pipe.
pub(super) fn write_output(what: &str, output: impl fmt::Display) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    written(what, write!(out, "{output}").and_then(|()| out.flush()))
}

/// Returns the result of writing to stdout as that of a command. `what` names the output in the message.
///
/// # Errors
///
/// Fails like [`write_output`].
pub(super) fn written(what: &str, result: io::Result<()>) -> Result<(), Exit> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Exit::failed(format!("cannot write {what}: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

// === impl Exit ===

impl Exit {
    pub(super) fn usage(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            status: USAGE,
            diagnostics,
            line: None,
        }
    }

    /// Reports a wrong argument.
    pub(super) fn misused(argument: &str, message: String) -> Self {
        Self::with_line(USAGE, argument, message)
    }

    /// Ends with this status and message.
    pub(super) fn with(status: u8, message: String) -> Self {
        Self::with_line(status, "error", message)
    }

    /// Ends with the status of another process, which has reported its error itself.
    pub(super) const fn silent(status: u8) -> Self {
        Self {
            status,
            diagnostics: Vec::new(),
            line: None,
        }
    }

    /// Ends with the status that shells give a program that a signal ended: 128 and its number.
    pub(super) fn ended_by(signal: i32) -> Self {
        Self::silent(u8::try_from(128 + signal).unwrap_or(u8::MAX))
    }

    /// Reports a failure at run time.
    pub(super) fn failed(message: String) -> Self {
        Self::with(1, message)
    }

    fn with_line(status: u8, label: &str, message: String) -> Self {
        Self {
            status,
            diagnostics: Vec::new(),
            line: Some((label.to_owned(), message)),
        }
    }

    /// Writes the message of a failure at run time to the log. The exit then has only its status.
    pub(super) fn into_log(self) -> Self {
        let Some((_, message)) = &self.line else {
            return self;
        };
        tracing::error!(
            help = LogEntry::StartFailed.page(),
            "the start failed: {message}"
        );
        Self::silent(self.status)
    }

    pub(super) fn report(&self) -> ExitCode {
        self.diagnostics.iter().for_each(write_line);
        if let Some((label, message)) = &self.line {
            complain(label, message);
        }
        ExitCode::from(self.status)
    }
}

/// Writes one line to stderr, such as `warning: MESSAGE`.
pub(super) fn complain(label: &str, message: &str) {
    write_line(&format_args!("{}: {}", Escaped(label), Escaped(message)));
}

/// Writes a line to stderr. Ignores errors, because there is no other place to report them.
fn write_line(line: &impl fmt::Display) {
    let _ = writeln!(io::stderr(), "sidentity: {line}");
}
