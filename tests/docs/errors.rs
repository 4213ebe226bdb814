//! docs/errors.md: an entry with a stable anchor for each error, each cause of a missing token and each log line.

use std::collections::BTreeSet;
use std::fmt::Write;

use sidentity::config::DiagnosticId;
use sidentity::diagnostics::LogEntry;
use sidentity::error::{ErrorKind, TokenFault};

use super::{OPERATING, expect_generated, path, read, section, sources};

const ERRORS: &str = "docs/errors.md";

/// Returns the anchor of an entry's URL.
fn id(page: &'static str) -> &'static str {
    let (file, id) = page.split_once('#').unwrap();
    assert!(file.ends_with(&format!("/blob/main/{ERRORS}")), "{page}");
    id
}

fn entry(text: &mut String, id: &str, title: &str, facts: &str, advice: &str) {
    write!(text, "<a id=\"{id}\"></a>\n### {title}\n\n").unwrap();
    if !facts.is_empty() {
        write!(text, "{facts}\n\n").unwrap();
    }
    write!(text, "{advice}\n\n").unwrap();
}

#[test]
fn every_error_has_an_entry_at_its_type_url() {
    let mut text = "\n".to_owned();
    let mut ids = BTreeSet::new();
    for kind in ErrorKind::ALL {
        let row = kind.row();
        let facts = format!(
            "`{}`, HTTP {}, gRPC {}",
            row.proxy_status,
            row.status.as_u16(),
            row.grpc
        );
        let id = id(kind.page());
        assert!(ids.insert(id), "{id} twice");
        entry(&mut text, id, row.title, &facts, kind.advice());
    }
    expect_generated(ERRORS, "errors", &text);
    let mut text = "\n".to_owned();
    for fault in TokenFault::ALL {
        let id = id(fault.page());
        assert!(ids.insert(id), "{id} twice");
        let facts = format!("HTTP {}", fault.kind().row().status.as_u16());
        let advice = match &*fault.advice_by_source() {
            [(_, advice)] => (*advice).to_owned(),
            all => all
                .iter()
                .map(|(sources, advice)| format!("- {sources}: {advice}"))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        entry(&mut text, id, fault.heading(), &facts, &advice);
    }
    expect_generated(ERRORS, "faults", &text);
}

#[test]
fn every_kind_of_configuration_error_is_in_the_table() {
    let mut table = "\n| kind | meaning, and what to do |\n|---|---|\n".to_owned();
    for id in DiagnosticId::ALL {
        let advice = id.advice();
        writeln!(table, "| <a id=\"config-{id}\"></a>`{id}` | {advice} |").unwrap();
    }
    expect_generated(ERRORS, "diagnostics", &format!("{table}\n"));
}

/// Returns the words of a message's fixed text, up to its first placeholder and at most 8.
fn slug(line: &str) -> String {
    let words: Vec<String> = line
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .take(8)
        .collect();
    format!("log-{}", words.join("-"))
}

#[test]
fn every_log_line_with_advice_has_an_entry() {
    let guide = read(OPERATING);
    let mut text = "\n".to_owned();
    let mut ids = BTreeSet::new();
    for row in section(&guide, "## Log lines").lines() {
        let Some(row) = row.strip_prefix("| `") else {
            continue;
        };
        let (line, cells) = row.split_once("` | ").unwrap();
        let (meaning, advice) = cells
            .trim_end_matches(" |")
            .split_once(" | ")
            .unwrap_or((cells, ""));
        if advice.trim_matches(['|', ' ']).is_empty() {
            continue;
        }
        let known = LogEntry::ALL.iter().find(|entry| entry.line() == line);
        let id = known.map_or_else(|| slug(line), |entry| id(entry.page()).to_owned());
        assert!(ids.insert(id.clone()), "{id} twice");
        let facts = format!("Meaning: {meaning}.");
        entry(
            &mut text,
            &id,
            &format!("`{line}`"),
            &facts,
            &format!("What to do: {advice}."),
        );
    }
    expect_generated(ERRORS, "log lines", &text);
    assert!(ids.len() > 20, "{ids:?}");
}

/// The entry of a warning is found by its line in the operating guide, so both must name it in the same words.
#[test]
fn the_help_of_every_warning_leads_to_its_entry() {
    let (errors, guide) = (read(ERRORS), read(OPERATING));
    let mut ids = BTreeSet::new();
    let pages = LogEntry::ALL.iter().map(|entry| entry.page().to_owned());
    for page in pages.chain(DiagnosticId::ALL.iter().map(|id| id.page())) {
        let (_, id) = page.split_once('#').unwrap();
        assert!(errors.contains(&format!("<a id=\"{id}\"></a>")), "{page}");
        assert!(ids.insert(id.to_owned()), "{id} twice");
    }
    for entry in LogEntry::ALL {
        let row = format!("\n| `{}` |", entry.line());
        assert!(
            *entry == LogEntry::ConfigurationWarning || guide.contains(&row),
            "{row}"
        );
    }
}

#[test]
fn every_warning_and_error_of_the_log_has_its_help() {
    let mut files = Vec::new();
    sources(&path("src"), &mut files);
    let mut calls = 0;
    for (file, source) in &files {
        for level in ["warn", "error"] {
            for call in source.split(&format!("tracing::{level}!(")).skip(1) {
                let arguments = call.split('"').next().unwrap();
                let literals = call.split(");\n").next().unwrap();
                assert!(
                    arguments.contains("help") || literals.contains("help = "),
                    "{}: {literals}",
                    file.display()
                );
                calls += 1;
            }
        }
    }
    assert!(calls > 20, "{calls}");
}
