//! `--rule` and `rules:`.

use std::collections::HashMap;

use super::super::entry;
use super::super::problem::{Problem, quote};
use super::super::raw::{Entry, Fields, Text};
use crate::policy::{Options, Pattern, Policy, Rule};

/// All of them; one that another hides, and one that reaches further than it should, is a warning.
pub(super) fn resolve(
    entries: &[Entry],
    universe: &str,
    warnings: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut reached = Vec::new();
    let mut places: HashMap<String, String> = HashMap::new();
    for entry in entries {
        let rule = entry::fields(entry, &entry::RULE)
            .map_err(|found| problems.extend(found))
            .ok()
            .and_then(|fields| {
                let place = fields.place.to_string();
                Some((place, rule(fields, problems)?))
            });
        let Some((place, rule)) = rule else {
            continue;
        };
        if let Some(first) = places.get(&rule.pattern.to_string()) {
            warnings.push(format!(
                "{place}: never matches, for {first} names {} before it",
                rule.pattern
            ));
        } else {
            places.insert(rule.pattern.to_string(), place.clone());
            reached.push((place, rule.clone()));
        }
        rules.push(rule);
    }
    for (place, rule) in &reached {
        if let Some(beyond) = rule.beyond_one_organisation() {
            warnings.push(format!(
                "{place}: {} reaches beyond one organisation's domain: {}",
                rule.pattern,
                beyond.advice()
            ));
        }
        warnings.extend(beyond_the_table(place, rule, &rules, universe));
    }
    rules
}

/// What to say of a wide rule that names hosts such as `oauth2.googleapis.com`.
fn beyond_the_table(place: &str, rule: &Rule, rules: &[Rule], universe: &str) -> Option<String> {
    let hosts = Policy::given_beyond_the_table(rule, rules, universe);
    let first = hosts.first()?;
    let replaces = if rule.replaces() {
        ", and replaces the app's own credential there"
    } else {
        ""
    };
    Some(format!(
        "{place}: it gives a token to hosts that get none without it{replaces}: {}; name the hosts that are meant, or add \
         --rule {first}=none{}",
        hosts.join(", "),
        if hosts.len() > 1 { " and the like" } else { "" }
    ))
}

fn rule(mut fields: Fields, problems: &mut Vec<Problem>) -> Option<Rule> {
    let before = problems.len();
    let pattern = pattern(&mut fields, problems);
    let mut options = options(&fields, problems);
    options.credential = options.effective_credential();
    if options.credential.is_none() && !fields.broken && problems.len() == before {
        let message = "credential is missing: write access, id, none or deny";
        problems.push(Problem::new(&*fields.place, message));
    }
    let (pattern, credential) = (pattern?, options.credential?);
    (problems.len() == before).then(|| Rule {
        name: format!("--rule {pattern}={credential}").into(),
        pattern,
        options,
    })
}

/// What is left of the fields, as options.
pub(super) fn options(fields: &Fields, problems: &mut Vec<Problem>) -> Options {
    let mut options = Options::default();
    let before = problems.len();
    for (name, text) in &fields.fields {
        if let Err(message) = options.set(name, &text.value) {
            problems.push(text.problem(message));
        }
    }
    if problems.len() == before
        && let Err(message) = options.validate()
    {
        problems.push(Problem::new(&*fields.place, message));
    }
    options
}

/// A line's pattern, or a mapping's `host`, `port` and `path`.
fn pattern(fields: &mut Fields, problems: &mut Vec<Problem>) -> Option<Pattern> {
    let parse = |text: &Text, whole: &str, problems: &mut Vec<Problem>| {
        Pattern::parse(whole)
            .map_err(|error| problems.push(text.problem(error.to_string())))
            .ok()
    };
    if let Some(text) = fields.take("pattern") {
        return parse(&text, &text.value, problems);
    }
    let (port, path) = (fields.take("port"), fields.take("path"));
    let host = fields.require("host", problems)?;
    let mut whole = host.value.clone();
    if let Some(port) = port {
        if port.value.is_empty() || !port.value.bytes().all(|b| b.is_ascii_digit()) {
            let message = format!("{} must be a number from 1 to 65535", quote(&port.value));
            problems.push(port.problem(message));
            return None;
        }
        whole = format!("{whole}:{}", port.value);
    }
    if let Some(path) = path {
        if !path.value.starts_with('/') {
            let message = format!("{} must begin with /", quote(&path.value));
            problems.push(path.problem(message));
            return None;
        }
        whole.push_str(&path.value);
    }
    // A path within the host would take the port for a part of itself.
    if whole != host.value && host.value.contains('/') {
        let message = format!(
            "{} holds a path, which has a key of its own: write it there",
            quote(&host.value)
        );
        problems.push(host.problem(message));
        return None;
    }
    parse(&host, &whole, problems)
}
