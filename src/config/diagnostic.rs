//! Errors of a configuration: the location, the wrong value, and the correction.

use std::fmt::{self, Write};

use crate::credentials::hidden;
use crate::suggestion::nearest;

/// One error of a configuration. It displays as one line, `PLACE: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of the error.
    pub id: DiagnosticId,
    /// `flag --proxy`, `environment SIDENTITY_PROXY`, or `FILE:LINE:COLUMN: field`.
    pub place: String,
    /// The wrong value and the correction. It never contains a password or a URL with user-info.
    pub message: String,
}

/// A text on one line: control characters are escaped. A line break in a file name or value must not start a second
/// line of the log.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

/// Defines [`DiagnosticId`] from the name and the advice of each kind of error.
macro_rules! diagnostic_ids {
    ($($id:ident: $name:literal, $advice:literal;)+) => {
        /// The kind of a [`Diagnostic`]. It does not change if the message is reworded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DiagnosticId {
            $(
                #[doc = $advice]
                $id,
            )+
        }

        impl DiagnosticId {
            /// Every kind, in the order of their names.
            pub const ALL: &[Self] = &[$(Self::$id),+];

            /// Returns the name, such as `unknown-key`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)+
                }
            }

            /// Returns what the error means and what to do.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$id => $advice,)+
                }
            }
        }
    };
}

diagnostic_ids! {
    ConflictingOptions: "conflicting-options",
        "Two options contradict each other, or one needs another: change or add the option that the message names.";
    Duplicate: "duplicate",
        "A value is given twice where one is allowed: remove one of them.";
    InvalidCredentialFile: "invalid-credential-file",
        "The credential file cannot be read or used: correct the field that the message names, or name another file.";
    InvalidFile: "invalid-file",
        "A file cannot be read, is too large, or has the wrong content: correct its path or its content.";
    InvalidValue: "invalid-value",
        "The option does not accept the value: write it in the form that the message shows.";
    InvalidYaml: "invalid-yaml",
        "The configuration file is not one YAML document: correct the text at the line and column of the message.";
    ListenerConflict: "listener-conflict",
        "Two listeners need the same address: give one of them another port, prefix or socket.";
    ListenerNotLoopback: "listener-not-loopback",
        "Others could reach the listener and use the identity: listen on 127.0.0.1, or set --allow-non-loopback.";
    MissingField: "missing-field",
        "A required argument, or a required field of a route or rule, is missing: add it.";
    MissingValue: "missing-value",
        "An option or a key has no value: add one, or remove the option.";
    NoCredentialFile: "no-credential-file",
        "`--credentials adc` found no credential file: run `gcloud auth application-default login`.";
    NotUtf8: "not-utf8",
        "An argument, a variable or the configuration file is not UTF-8 text: save or set it as UTF-8.";
    NothingToDo: "nothing-to-do",
        "The proxy is off and there is no route: add a route, or remove --proxy off.";
    OptionWithoutEffect: "option-without-effect",
        "The option has no effect here: remove it, or add the option that it belongs to.";
    PlaintextToken: "plaintext-token",
        "A token would be sent unencrypted: write https://, or allow it with plaintext=allow.";
    ProxyLoop: "proxy-loop",
        "The upstream proxy is a listener of the sidecar itself: name another proxy.";
    SandboxDenied: "sandbox-denied",
        "The sandbox forbids what the changed configuration needs: restart, or set --sandbox off.";
    TokenUnobtainable: "token-unobtainable",
        "The credential cannot issue the token that a rule or route requires: change the rule, or use impersonation.";
    UnexpectedArgument: "unexpected-argument",
        "An argument is unexpected: remove it, or put it after its flag.";
    UnknownCommand: "unknown-command",
        "There is no command of this name: see --help.";
    UnknownFlag: "unknown-flag",
        "There is no flag of this name: see --help.";
    UnknownKey: "unknown-key",
        "The configuration file has an unknown key: correct its spelling or its place.";
    UnknownOption: "unknown-option",
        "A route or rule has an unknown option: correct its spelling.";
    UnknownVariable: "unknown-variable",
        "A variable's name is similar to that of an option: correct its spelling, or unset it.";
    WrongType: "wrong-type",
        "The configuration file has a list or mapping instead of a text, or the reverse: write it in the form that \
         the message shows.";
}

// === impl Diagnostic ===

impl Diagnostic {
    /// Returns a diagnostic for this place.
    pub fn new(id: DiagnosticId, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id,
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Escaped(&self.place), Escaped(&self.message))
    }
}

impl std::error::Error for Diagnostic {}

// === impl DiagnosticId ===

impl fmt::Display for DiagnosticId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Escaped ===

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// The message for a value that looks like a credential, where none is accepted.
pub(crate) const MISPLACED_CREDENTIAL: &str = "the value looks like a credential, so it is neither used nor shown: write \
     it to a file, and name the file by --credentials";

/// Quotes a value for a message, cut after 80 characters. A value that looks like a credential is not shown.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    if let Some(hidden) = hidden(text) {
        return hidden.to_owned();
    }
    if text.chars().nth(LONGEST).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}…")
}

/// Like [`quote`], but returns `None` for a text with an `@`, because the part before it may be a password.
pub(super) fn quote_unless_secret(text: &str) -> Option<String> {
    let at_sign = text.contains('@') || text.to_ascii_lowercase().contains("%40");
    (!at_sign).then(|| quote(text))
}

/// Returns `: did you mean X?` if a candidate is similar to `text`, otherwise an empty text.
pub(super) fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, candidates, |candidate| candidate.len().div_ceil(4))
        .map(|candidate| format!(": did you mean {candidate}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_diagnostic_id_is_unique_and_in_order_of_its_name() {
        let names: Vec<_> = DiagnosticId::ALL.iter().map(|id| id.as_str()).collect();
        assert!(names.is_sorted_by(|one, next| one < next), "{names:#?}");
        for name in names {
            let is_kebab_case = name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(is_kebab_case, "{name}");
        }
    }
}
