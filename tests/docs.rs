//! The documents match the code. Generated parts are compared with the code; other parts are searched for names that
//! are missing or obsolete. `WRITE_DOCS=1 cargo test --test docs` writes the generated parts.

// A failed assertion must name the place and the value.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use sidentity::cli::Flags;
use sidentity::config::{OptionKey, Reload};
use sidentity::error::{ErrorKind, TokenFault};
use sidentity::policy::{Credential, RuleOptions};
use sidentity::telemetry::{Code, Metrics};

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/errors.rs"]
mod errors;
#[path = "docs/google_names.rs"]
mod google_names;
#[path = "docs/kubernetes_names.rs"]
mod kubernetes_names;
#[path = "docs/links.rs"]
mod links;

const CONFIGURATION: &str = "docs/configuration.md";
const OPERATING: &str = "docs/operating.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Asserts that the part of the document between its marks is `expected`.
fn expect_generated(document: &str, part: &str, expected: &str) {
    let text = read(document);
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end -->\n");
    let (before, rest) = text.split_once(&begin).expect(part);
    let (found, after) = rest.split_once(end).expect(part);
    if found == expected {
        return;
    }
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(
            path(document),
            format!("{before}{begin}{expected}{end}{after}"),
        )
        .unwrap();
        return;
    }
    panic!(
        "{document}, {part}: run `WRITE_DOCS=1 cargo test --test docs -- --test-threads=1`.\nIt says:\n{found}\nThe code says:\n{expected}"
    );
}

/// Escapes a text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Returns the texts in backticks.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the lines under this heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap()
}

#[test]
fn the_configuration_reference_lists_every_option_as_in_help() {
    let command = Flags::augment_args(clap::Command::new("sidentity"));
    let mut table =
        "| option | variable | key | default | reload | meaning |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let mut names = BTreeSet::new();
    for argument in command.get_arguments() {
        let name = argument.get_long().unwrap();
        let value = argument.get_value_names().unwrap()[0].as_str();
        let help = argument.get_help().unwrap().to_string();
        let (meaning, default) = match help.rsplit_once(" [default: ") {
            Some((meaning, default)) => (meaning, default.trim_end_matches(']')),
            None if value == "BOOL" => (&*help, "false"),
            None => (&*help, "none"),
        };
        let switch = match value {
            "BOOL" => format!("--{name}[=BOOL]"),
            _ => format!("--{name} {value}"),
        };
        let key = name.replace('-', "_");
        let variable = format!("SIDENTITY_{}", key.to_uppercase());
        let option = OptionKey::ALL.iter().find(|key| key.as_str() == name);
        let reload = match option.map(|key| key.spec().reload) {
            Some(Reload::Live) => "live",
            Some(Reload::Restart(_)) => "restart",
            Some(Reload::Listener) if name == "route" => "live, restart for a new listener",
            Some(Reload::Listener) => "restart",
            None => "–",
        };
        let key = match name {
            "config" => "–".to_owned(),
            _ => format!("`{key}`"),
        };
        writeln!(
            table,
            "| `{}` | `{variable}` | {key} | {} | {reload} | {} |",
            cell(&switch),
            cell(default),
            cell(meaning)
        )
        .unwrap();
        if name != "config" {
            names.insert(name.to_owned());
        }
    }
    let known: BTreeSet<String> = OptionKey::ALL
        .iter()
        .map(|name| name.as_str().to_owned())
        .collect();
    assert_eq!(names, known);
    expect_generated(CONFIGURATION, "options", &table);
}

#[test]
fn the_configuration_reference_lists_every_command_as_in_help() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    let commands = all.split_once("Commands:\n").unwrap().1;
    let commands = commands.split("\n\n").next().unwrap();
    let mut text = format!("```\n{commands}\n```\n");
    // The other commands have the options above.
    for command in ["health", "wait", "metadata-server", "demo", "completions"] {
        let help = help(&[command, "--help"]);
        write!(text, "\n```\n{}\n```\n", help.trim_end()).unwrap();
    }
    expect_generated(CONFIGURATION, "commands", &text);
}

#[test]
fn the_configuration_reference_lists_every_option_of_routes_and_rules() {
    let text = read(CONFIGURATION);
    let table = section(&text, "## Options of routes and rules");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let found: BTreeSet<&str> = rows
        .map(|row| row.split(['=', '`']).next().unwrap())
        .collect();
    let known: BTreeSet<&str> = RuleOptions::NAMES
        .into_iter()
        .chain(["http", "mode"])
        .collect();
    assert_eq!(found, known);
}

#[test]
fn the_file_in_the_configuration_reference_is_valid() {
    let text = read(CONFIGURATION);
    let yaml = text.split("```yaml\n").nth(1).unwrap();
    let yaml = yaml.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_dir = folder.path().display().to_string();
    let file = folder.path().join("sidentity.yaml");
    fs::write(&file, yaml.replace("/shared/ca", &ca_dir)).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(["check", "--config"])
        .arg(&file)
        .env_clear()
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn the_operating_guide_lists_every_error_with_advice() {
    let mut table =
        "| `error` | status | gRPC | it means | what to do |\n|---|---|---|---|---|\n".to_owned();
    for kind in ErrorKind::ALL {
        let row = kind.row();
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {} |",
            row.proxy_status,
            row.status.as_u16(),
            row.grpc,
            cell(row.title),
            cell(kind.advice())
        )
        .unwrap();
    }
    expect_generated(OPERATING, "errors", &table);
    let mut table = "| it means | status | what to do |\n|---|---|---|\n".to_owned();
    for fault in TokenFault::ALL {
        writeln!(
            table,
            "| {} | {} | {} |",
            cell(fault.title()),
            fault.kind().row().status.as_u16(),
            cell(fault.advice())
        )
        .unwrap();
    }
    expect_generated(OPERATING, "faults", &table);
}

#[test]
fn the_operating_guide_lists_exactly_the_metrics() {
    let metrics = Metrics::new();
    let listener = metrics.listener("proxy");
    let code = Code::from(http::StatusCode::OK);
    listener.request_finished(Credential::Access, code, Duration::from_millis(1));
    let _request = listener.request_started();
    let exposition = metrics.render();
    let families: BTreeSet<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let text = read(OPERATING);
    let table = section(&text, "## Metrics");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let found: BTreeSet<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    assert_eq!(found, families);
    // Other parts of the document must not name a metric that does not exist.
    for name in quoted(&text) {
        if let Some((_, label)) = name.strip_suffix('}').and_then(|name| name.split_once('{')) {
            assert!(exposition.contains(label), "{name}: no such label");
        }
        let name = name.split(['{', ' ', '[']).next().unwrap();
        if name.starts_with("sidentity_") || name.starts_with("process_") {
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|base| families.contains(base));
            assert!(
                families.contains(base.unwrap_or(name)),
                "{name} is no metric"
            );
        }
    }
    // Operators see the values of closed labels.
    let known = quoted(table);
    for label in ["outcome=\"", "reason=\""] {
        for rest in exposition.split(label).skip(1) {
            let value = rest.split('"').next().unwrap();
            assert!(known.contains(value), "{label}{value}\" is not explained");
        }
    }
}

/// Collects every source file of the sidecar, with the lines of a string literal joined.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "emulator" && name != "demo" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !["tests.rs", "demo.rs"].contains(&name) {
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.split("\\\n");
            let first = lines.next().unwrap().to_owned();
            let joined = lines.fold(first, |joined, line| joined + line.trim_start());
            found.push((path, joined));
        }
    }
}

/// Returns the fixed text of a message up to its first placeholder.
fn beginning(message: &str) -> &str {
    message.split(['{', '…']).next().unwrap().trim_end()
}

#[test]
fn the_operating_guide_lists_every_log_line() {
    let text = read(OPERATING);
    let table = section(&text, "## Log lines");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<&str> = rows
        .map(|row| beginning(row.split('`').next().unwrap()))
        .collect();
    let mut files = Vec::new();
    sources(&path("src"), &mut files);
    let mut logged = BTreeSet::new();
    for (file, source) in &files {
        for level in ["info", "warn", "error"] {
            for call in source.split(&format!("tracing::{level}!(")).skip(1) {
                let call = &call[..call
                    .find(");\n")
                    .or_else(|| call.find(")\n"))
                    .unwrap_or(call.len())];
                // Names of fields are also literals, and so are some values.
                let mut parts = call.split('"');
                let mut before = parts.next().unwrap();
                let message = loop {
                    let literal = parts
                        .next()
                        .unwrap_or_else(|| panic!("{}: {call}", file.display()));
                    let is_name = literal.starts_with("logging.googleapis.com/");
                    if !is_name && !before.ends_with("= ") {
                        break literal;
                    }
                    before = parts.next().unwrap();
                };
                if !beginning(message).is_empty() {
                    logged.insert(beginning(message).to_owned());
                }
            }
        }
    }
    let logged: BTreeSet<&str> = logged.iter().map(String::as_str).collect();
    let missing: Vec<_> = logged.difference(&told).collect();
    let gone: Vec<_> = told.difference(&logged).collect();
    assert!(
        missing.is_empty(),
        "not in {OPERATING}: {missing:#?}; gone: {gone:#?}"
    );
    // A line that begins with a value cannot be searched.
    for line in gone {
        assert!(
            files.iter().any(|(_, source)| source.contains(line)),
            "nothing logs {line:?}"
        );
    }
}

/// Returns the text of every Rust and Python file below a folder.
fn all_code(folder: &Path) -> String {
    let mut code = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code += &all_code(&path);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "rs" || extension == "py")
        {
            code += &fs::read_to_string(&path).unwrap();
        }
    }
    code
}

/// The last cell of a threat's row has the names of its tests.
#[test]
fn every_test_named_by_the_security_page_exists() {
    let code = all_code(&path("src")) + &all_code(&path("tests"));
    let page = read("docs/security.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.trim_end_matches(" |").rsplit_once('|'))
        .flat_map(|(_, last)| quoted(last))
        .filter(|name| name.len() > 20)
        .collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            !["fn", "def"]
                .iter()
                .any(|keyword| code.contains(&format!("{keyword} {name}(")))
        })
        .collect();
    assert!(
        missing.is_empty(),
        "docs/security.md names no test: {missing:?}"
    );
    assert!(named.len() > 40, "{}", named.len());
}
