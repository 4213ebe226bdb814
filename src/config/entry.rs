//! Routes and rules before they are resolved: the line of a flag is converted to the same fields as the mapping of a
//! file.

use std::sync::Arc;

use super::diagnostic::{Diagnostic, DiagnosticId, quote, quote_unless_secret, suggestion};
use super::raw::{RawEntry, RawFields, Spanned};
use crate::policy::RuleOptions;

/// The syntax of an entry, in a flag and in a file.
pub(super) struct EntrySyntax {
    /// The names of the fields before and after the `=` of a line.
    ends: (&'static str, &'static str),
    /// The options of a line, in addition to [`RuleOptions::NAMES`].
    line: &'static [&'static str],
    /// The fields of a mapping, in addition to [`RuleOptions::NAMES`].
    mapping: &'static [&'static str],
    /// The accepted form of a line, for messages.
    form: &'static str,
}

pub(super) const ROUTE: EntrySyntax = EntrySyntax {
    ends: ("listen", "upstream"),
    line: &["http", "mode"],
    mapping: &["listen", "prefix", "upstream", "http", "mode"],
    form: "LISTEN=URL[,OPTION…], like 8081=https://storage.googleapis.com",
};

pub(super) const RULE: EntrySyntax = EntrySyntax {
    ends: ("pattern", "credential"),
    line: &[],
    mapping: &["host", "port", "path"],
    form: "PATTERN=CREDENTIAL[,OPTION…], like *.internal.example=id",
};

/// Returns the fields of an entry. A line is split at its commas, so a value in a line cannot contain a comma.
pub(super) fn fields(entry: &RawEntry, syntax: &EntrySyntax) -> Result<RawFields, Vec<Diagnostic>> {
    match entry {
        RawEntry::Fields(fields) => Ok(fields.clone()),
        RawEntry::Line(line) => split(line, syntax),
    }
}

fn split(line: &Spanned, syntax: &EntrySyntax) -> Result<RawFields, Vec<Diagnostic>> {
    let mut parts = line.value.split(',');
    let head = parts.next().and_then(|head| head.split_once('='));
    // The text before the first `=` is part of the displayed place. A URL there may contain a password, so it is an
    // error.
    let head = head.filter(|(first, second)| {
        !first.is_empty() && !second.is_empty() && !first.contains("://")
    });
    let Some((first, second)) = head else {
        let form = syntax.form;
        let has_scheme = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        let form = match syntax.ends.0 == "pattern" && has_scheme(&line.value) {
            true => format!("{form}, without a scheme"),
            false => form.to_owned(),
        };
        let message = match quote_unless_secret(without_query(&line.value)) {
            Some(value) => format!("{value} must be {form}"),
            None => format!("write {form}"),
        };
        return Err(vec![line.diagnostic(DiagnosticId::InvalidValue, message)]);
    };
    let place: Arc<str> = format!("{} {}", line.place, printable(first)).into();
    let mut fields = vec![
        (
            syntax.ends.0.to_owned(),
            Spanned::new(first, Arc::clone(&place)),
        ),
        (
            syntax.ends.1.to_owned(),
            Spanned::new(second, Arc::clone(&place)),
        ),
    ];
    let mut diagnostics = Vec::new();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let mut known = RuleOptions::NAMES.iter().chain(syntax.line).copied();
        if known.clone().any(|option| option == name) && part.contains('=') {
            fields.push((
                name.to_owned(),
                Spanned::new(value, format!("{place}: {name}")),
            ));
        } else if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            let (id, what) = if known.any(|option| option == name) {
                (DiagnosticId::MissingValue, format!("write {name}=VALUE"))
            } else {
                let known: Vec<_> = RuleOptions::NAMES
                    .iter()
                    .chain(syntax.line)
                    .copied()
                    .collect();
                (DiagnosticId::UnknownOption, unknown(name, &known))
            };
            diagnostics.push(Diagnostic::new(id, &*place, what));
        } else {
            // A piece of a URL with a password must not be shown.
            let shown = quote_unless_secret(&line.value).map(|_| quote(name));
            let message = match shown {
                Some(part) => format!("{part} must be an option after the comma, NAME=VALUE"),
                None => "the text after a comma must be an option, NAME=VALUE".to_owned(),
            };
            diagnostics.push(Diagnostic::new(
                DiagnosticId::UnknownOption,
                &*place,
                message,
            ));
        }
    }
    if diagnostics.is_empty() {
        Ok(RawFields {
            place,
            fields,
            broken: false,
        })
    } else {
        Err(diagnostics)
    }
}

/// Removes the query, which may contain a key.
pub(super) fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// Suggests the most similar name, or lists all known names.
fn unknown(name: &str, known: &[&str]) -> String {
    let near = suggestion(name, known.iter().copied());
    let rest = if near.is_empty() {
        format!(": use one of {}", known.join(", "))
    } else {
        near
    };
    format!("unknown option {}{rest}", quote(name))
}

/// Shortens a line's name, so that its place stays short.
fn printable(text: &str) -> String {
    text.chars().take(80).collect()
}

// === impl EntrySyntax ===

impl EntrySyntax {
    /// Returns the names of a mapping's fields.
    pub(super) fn known(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.mapping.iter().copied().chain(RuleOptions::NAMES)
    }
}

// === impl RawFields ===

impl RawFields {
    /// Removes and returns the field.
    pub(super) fn take(&mut self, name: &str) -> Option<Spanned> {
        let index = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.remove(index).1)
    }

    /// Like [`take`](Self::take), and reports the field if it is given twice.
    pub(super) fn take_once(
        &mut self,
        name: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Spanned> {
        let first = self.take(name)?;
        while let Some(again) = self.take(name) {
            let message = format!("{name} is given twice: keep one");
            diagnostics.push(again.diagnostic(DiagnosticId::Duplicate, message));
        }
        Some(first)
    }

    /// Removes and returns a field that is required.
    pub(super) fn require(
        &mut self,
        name: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Spanned> {
        let field = self.take(name);
        if field.is_none() && !self.broken {
            let message = format!("{name} is missing");
            diagnostics.push(Diagnostic::new(
                DiagnosticId::MissingField,
                &*self.place,
                message,
            ));
        }
        field
    }
}
