//! docs/commands: a page for each command, generated from its `--help`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::path;

const FOLDER: &str = "docs/commands";

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the commands and their descriptions, in the order of `--help`.
fn commands() -> Vec<(String, String)> {
    let all = help(&["--help"]);
    let (_, list) = all.split_once("Commands:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    list.lines()
        .map(|line| line.trim().split_once("  ").unwrap())
        .map(|(name, does)| (name.to_owned(), does.trim().to_owned()))
        .filter(|(name, _)| name != "help")
        .collect()
}

/// Returns the page of a command. The paragraph before `Usage:` is its description.
fn page(name: &str) -> String {
    let help = help(&[name, "--help"]);
    let (about, usage) = help.split_once("Usage: ").unwrap();
    format!(
        "<!-- generated from --help: WRITE_DOCS=1 cargo test --test docs -- --test-threads=1 -->\n\
         # `sidentity {name}`\n\n{}\n\n```\nUsage: {}\n```\n\n\
         [All commands](README.md) · [configuration reference](../configuration.md)\n",
        about.trim_end(),
        usage.trim_end()
    )
}

/// Returns the summary of the site, with a line for each command.
fn summary(commands: &[(String, String)]) -> String {
    let found = fs::read_to_string(path("docs/SUMMARY.md")).unwrap();
    let mut summary = String::new();
    for line in found.lines() {
        if line.contains("](commands/README.md)") {
            writeln!(summary, "{line}").unwrap();
            for (name, _) in commands {
                writeln!(summary, "  - [{name}](commands/{name}.md)").unwrap();
            }
        } else if !line.contains("](commands/") {
            writeln!(summary, "{line}").unwrap();
        }
    }
    summary
}

#[test]
fn every_command_has_a_page_with_its_help() {
    let commands = commands();
    assert!(commands.len() >= 9, "{commands:?}");
    let mut index = "<!-- generated from --help: WRITE_DOCS=1 cargo test --test docs -- --test-threads=1 -->\n\
         # Commands\n\nThis page lists the commands of `sidentity`. Each page has its usage, options and examples.\n\n\
         | command | does |\n|---|---|\n"
        .to_owned();
    let mut pages = Vec::new();
    for (name, does) in &commands {
        writeln!(index, "| [`{name}`]({name}.md) | {does} |").unwrap();
        pages.push((format!("{name}.md"), page(name)));
    }
    pages.push(("README.md".to_owned(), index));
    pages.push(("../SUMMARY.md".to_owned(), summary(&commands)));
    let folder = path(FOLDER);
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &pages {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    for (name, text) in &pages {
        let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            found == *text,
            "{FOLDER}/{name}: run `WRITE_DOCS=1 cargo test --test docs -- --test-threads=1`.\nIt says:\n{found}\nThe code says:\n{text}"
        );
    }
    let there: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let pages = pages.into_iter().map(|(name, _)| name);
    assert_eq!(
        there,
        pages.filter(|name| !name.starts_with("..")).collect()
    );
}
