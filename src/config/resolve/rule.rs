//! `--rule` and `rules:`.

use std::collections::HashMap;

use super::super::diagnostic::{Diagnostic, DiagnosticId, quote};
use super::super::entry;
use super::super::raw::{RawEntry, RawFields, Spanned};
use crate::policy::{Pattern, Policy, Rule, RuleOptions};

/// Resolves all rules. Warns of a rule that an earlier one shadows, and of one that reaches too far.
pub(super) fn resolve(
    entries: &[RawEntry],
    universe: &str,
    warnings: &mut Vec<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut reached = Vec::new();
    let mut places: HashMap<String, String> = HashMap::new();
    for entry in entries {
        let rule = entry::fields(entry, &entry::RULE)
            .map_err(|found| diagnostics.extend(found))
            .ok()
            .and_then(|fields| {
                let place = fields.place.to_string();
                Some((place, rule(fields, diagnostics)?))
            });
        let Some((place, rule)) = rule else {
            continue;
        };
        if let Some(first) = places.get(&rule.pattern.to_string()) {
            warnings.push(format!(
                "{place}: never matches, because {first} has {} before it",
                rule.pattern
            ));
        } else {
            places.insert(rule.pattern.to_string(), place.clone());
            reached.push((place, rule.clone()));
        }
        rules.push(rule);
    }
    for (place, rule) in &reached {
        if let Some(shared) = rule.shared_suffix() {
            warnings.push(format!(
                "{place}: {} reaches beyond one organisation's domain: {}",
                rule.pattern,
                shared.advice()
            ));
        }
        warnings.extend(beyond_the_table(place, rule, &rules, universe));
    }
    rules
}

/// Returns a warning about a wide rule that matches hosts such as `oauth2.googleapis.com`.
fn beyond_the_table(place: &str, rule: &Rule, rules: &[Rule], universe: &str) -> Option<String> {
    let hosts = Policy::given_beyond_the_table(rule, rules, universe);
    let first = hosts.first()?;
    let replaces = if rule.replaces() {
        ", and replaces the app's own credential there"
    } else {
        ""
    };
    Some(format!(
        "{place}: it gives a token to hosts that get none by default{replaces}: {}; name the intended hosts, or add \
         --rule {first}=none{}",
        hosts.join(", "),
        if hosts.len() > 1 {
            " and similar rules"
        } else {
            ""
        }
    ))
}

fn rule(mut fields: RawFields, diagnostics: &mut Vec<Diagnostic>) -> Option<Rule> {
    let before = diagnostics.len();
    let pattern = pattern(&mut fields, diagnostics);
    let mut options = options(&fields, diagnostics);
    options.credential = options.effective_credential();
    if options.credential.is_none() && !fields.broken && diagnostics.len() == before {
        let message = "credential is missing: write access, id, none or deny";
        diagnostics.push(Diagnostic::new(
            DiagnosticId::MissingField,
            &*fields.place,
            message,
        ));
    }
    let (pattern, credential) = (pattern?, options.credential?);
    (diagnostics.len() == before).then(|| Rule {
        name: format!("--rule {pattern}={credential}").into(),
        pattern,
        options,
    })
}

/// Parses the remaining fields as options.
pub(super) fn options(fields: &RawFields, diagnostics: &mut Vec<Diagnostic>) -> RuleOptions {
    let mut options = RuleOptions::default();
    let before = diagnostics.len();
    for (name, text) in &fields.fields {
        if let Err(message) = options.set(name, &text.value) {
            diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message));
        }
    }
    if diagnostics.len() == before
        && let Err(message) = options.validate()
    {
        diagnostics.push(Diagnostic::new(
            DiagnosticId::ConflictingOptions,
            &*fields.place,
            message,
        ));
    }
    options
}

/// Parses a line's pattern, or a mapping's `host`, `port` and `path`.
fn pattern(fields: &mut RawFields, diagnostics: &mut Vec<Diagnostic>) -> Option<Pattern> {
    let parse = |text: &Spanned, whole: &str, diagnostics: &mut Vec<Diagnostic>| {
        Pattern::parse(whole)
            .map_err(|error| {
                diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, error.to_string()))
            })
            .ok()
    };
    if let Some(text) = fields.take("pattern") {
        return parse(&text, &text.value, diagnostics);
    }
    let (port, path) = (fields.take("port"), fields.take("path"));
    let host = fields.require("host", diagnostics)?;
    let mut whole = host.value.clone();
    if let Some(port) = &port {
        if !port.value.parse::<u16>().is_ok_and(|number| number > 0)
            || !port.value.bytes().all(|b| b.is_ascii_digit())
        {
            let message = format!("{} must be a number from 1 to 65535", quote(&port.value));
            diagnostics.push(port.diagnostic(DiagnosticId::InvalidValue, message));
            return None;
        }
        whole = format!("{whole}:{}", port.value);
    }
    if let Some(path) = &path {
        if !path.value.starts_with('/') {
            let message = format!("{} must begin with /", quote(&path.value));
            diagnostics.push(path.diagnostic(DiagnosticId::InvalidValue, message));
            return None;
        }
        whole.push_str(&path.value);
    }
    // If `host` contained a path, the port would become a part of the path.
    if whole != host.value && host.value.contains('/') {
        let message = format!(
            "{} contains a path: write it under the key path",
            quote(&host.value)
        );
        diagnostics.push(host.diagnostic(DiagnosticId::InvalidValue, message));
        return None;
    }
    // Reports the part that is wrong: each is parsed with the ones before it.
    parse(&host, &host.value, diagnostics)?;
    match (&path, &port) {
        (Some(path), _) => parse(path, &whole, diagnostics),
        (None, Some(port)) => parse(port, &whole, diagnostics),
        (None, None) => parse(&host, &whole, diagnostics),
    }
}
