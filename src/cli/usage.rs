//! Converts clap's errors to diagnostics, one line each.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::config::{Diagnostic, DiagnosticId, MISPLACED_CREDENTIAL};
use crate::credentials::is_credential;

/// Returns the diagnostic of an error of the command line.
pub(super) fn diagnostic(error: &Error) -> Diagnostic {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let texts = |kind| match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.as_slice(),
        _ => &[],
    };
    let near = |kind| {
        text(kind)
            .map(|name| format!("did you mean {name}?"))
            .unwrap_or_else(|| "see --help".to_owned())
    };
    // clap gives "--proxy <ADDR|off>"; the place is only the flag.
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let place = format!("flag {flag}");
    let value = text(ContextKind::InvalidValue).or_else(|| text(ContextKind::InvalidSubcommand));
    if is_credential(argument) || value.is_some_and(is_credential) {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let is_flag = flag.starts_with("--") && flag.chars().all(is_name);
        let place = match is_flag {
            true => place,
            false => "command line".to_owned(),
        };
        return Diagnostic::new(DiagnosticId::InvalidValue, place, MISPLACED_CREDENTIAL);
    }
    match error.kind() {
        ErrorKind::UnknownArgument if is_negative(argument) => Diagnostic::new(
            DiagnosticId::UnknownFlag,
            format!("unknown flag {flag}"),
            "a value that begins with - follows its flag with =, as in --workers=-1",
        ),
        ErrorKind::UnknownArgument if flag.starts_with('-') => Diagnostic::new(
            DiagnosticId::UnknownFlag,
            format!("unknown flag {flag}"),
            near(ContextKind::SuggestedArg),
        ),
        ErrorKind::UnknownArgument if super::command().find_subcommand(argument).is_some() => {
            Diagnostic::new(
                DiagnosticId::UnexpectedArgument,
                "unexpected argument",
                format!("{argument:?} is a command: write it before its flags"),
            )
        }
        ErrorKind::UnknownArgument => Diagnostic::new(
            DiagnosticId::UnexpectedArgument,
            "unexpected argument",
            format!("{argument:?} follows no flag: remove it, or put it after its flag"),
        ),
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let near = near(ContextKind::SuggestedSubcommand);
            Diagnostic::new(
                DiagnosticId::UnknownCommand,
                format!("unknown command {name}"),
                near,
            )
        }
        ErrorKind::InvalidValue if !texts(ContextKind::ValidValue).is_empty() => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let words = texts(ContextKind::ValidValue).join(", ");
            let argument = argument.trim_matches(['<', '>']);
            Diagnostic::new(
                DiagnosticId::InvalidValue,
                argument,
                format!("{value:?} must be one of {words}"),
            )
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::WrongNumberOfValues => {
            let form = argument.strip_prefix(flag).unwrap_or_default().trim();
            Diagnostic::new(
                DiagnosticId::MissingValue,
                place,
                format!("needs a value: {flag} {form}"),
            )
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg) {
            Some(other) if other != argument => {
                let other = other.split([' ', '=', '[']).next().unwrap_or_default();
                Diagnostic::new(
                    DiagnosticId::ConflictingOptions,
                    place,
                    format!("cannot be used with {other}: remove one"),
                )
            }
            _ => Diagnostic::new(DiagnosticId::Duplicate, place, "is given twice: keep one"),
        },
        ErrorKind::InvalidUtf8 => {
            Diagnostic::new(DiagnosticId::NotUtf8, "command line", "must be UTF-8 text")
        }
        ErrorKind::MissingRequiredArgument => Diagnostic::new(
            DiagnosticId::MissingField,
            "command line",
            format!("{argument} is missing"),
        ),
        _ => {
            let rendered = error.render().to_string();
            let line = rendered.lines().next().unwrap_or_default();
            Diagnostic::new(
                DiagnosticId::InvalidValue,
                "command line",
                line.trim_start_matches("error: "),
            )
        }
    }
}

/// Returns whether an argument that is no flag looks like a negative number.
fn is_negative(argument: &str) -> bool {
    let mut bytes = argument.bytes();
    bytes.next() == Some(b'-') && bytes.next().is_some_and(|byte| byte.is_ascii_digit())
}
