//! `--help`, completion scripts and man pages.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

#[allow(dead_code, reason = "its `main` is for `cargo run`")]
#[path = "../examples/man-pages.rs"]
mod man_pages;

const COMMANDS: [&str; 10] = [
    "run",
    "exec",
    "explain",
    "token",
    "check",
    "health",
    "wait",
    "metadata-server",
    "demo",
    "completions",
];

fn sidentity(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidentity"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = sidentity(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program that may not be installed.
fn run_if_installed(program: &str, arguments: &[&str], file: &Path) -> Option<Output> {
    match Command::new(program).args(arguments).arg(file).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Returns bash's completions of the last of these words.
fn offered_by_bash(script: &Path, words: &[&str]) -> Vec<String> {
    let test = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        compopt() { :; }
        _sidentity sidentity "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", test, "bash"])
        .arg(script)
        .args(words)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn help_of_every_command_ends_with_two_examples() {
    let listed = stdout(&["--help"]);
    for command in COMMANDS {
        let listed = listed.lines().any(|line| line.trim().starts_with(command));
        assert!(listed, "{command}");
    }
    for command in COMMANDS.map(Some).into_iter().chain([None]) {
        let help = stdout(&Vec::from_iter(command.into_iter().chain(["--help"])));
        let (_, examples) = help.split_once("\nExamples:\n").unwrap();
        let examples: Vec<&str> = examples.lines().collect();
        assert_eq!(examples.len(), 2, "{help}");
        for example in examples {
            let command = command.unwrap_or_default();
            let command = format!("  sidentity {command}");
            assert!(example.starts_with(&command), "{example}");
        }
    }
}

#[test]
fn help_groups_the_options_of_a_command_under_headings() {
    for command in ["run", "exec", "explain", "token", "check"] {
        let help = stdout(&[command, "--help"]);
        let headings = help.lines().filter_map(|line| line.strip_suffix(':'));
        let headings: Vec<&str> = headings.filter(|line| !line.starts_with(' ')).collect();
        let options = headings.iter().skip_while(|name| **name != "Options");
        let expected = [
            "Options",
            "Listeners",
            "Routes and rules",
            "TLS interception",
            "Tokens",
            "Upstreams",
            "Limits",
            "Logging",
            "Examples",
        ];
        assert!(options.eq(expected.iter()), "{command}: {headings:?}");
    }
    let help = stdout(&["metadata-server", "--help"]);
    assert!(help.contains("\nReal tokens:\n"), "{help}");
}

#[test]
fn bash_completes_commands_options_enumerations_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("sidentity.bash");
    fs::write(&script, stdout(&["completions", "bash"])).unwrap();
    let offered = |words: &[&str]| offered_by_bash(&script, words);
    let sorted = |words: &[&str]| {
        let mut offered = offered(words);
        offered.sort();
        offered
    };
    assert_eq!(offered(&["sidentity", "met"]), ["metadata-server"]);
    assert_eq!(
        offered(&["sidentity", "run", "--upstream-c"]),
        ["--upstream-ca"]
    );
    for (option, words) in [
        ("--unmatched", &["deny", "pass"][..]),
        ("--metadata-access", &["deny", "pass"]),
        ("--discover", &["auto", "off", "on"]),
        ("--intercept", &["false", "true"]),
        ("--credentials", &["adc", "auto", "metadata"]),
        ("--upstream-http", &["1", "2", "auto"]),
        ("--sandbox", &["auto", "off"]),
        ("--log-format", &["auto", "json", "text"]),
        ("--log-level", &["debug", "error", "info", "trace", "warn"]),
        ("--access-log", &["all", "errors", "off"]),
        ("--response-timeout", &["off"]),
        ("--proxy", &["off"]),
    ] {
        for command in ["run", "exec", "check"] {
            assert_eq!(sorted(&["sidentity", command, option, ""]), words);
        }
    }
    assert_eq!(
        sorted(&["sidentity", "completions", ""])
            .iter()
            .filter(|word| !word.starts_with('-'))
            .collect::<Vec<_>>(),
        ["bash", "fish", "zsh"]
    );
    let file = folder.path().join("c.yaml");
    fs::write(&file, "").unwrap();
    let beginning = folder.path().join("c.y").display().to_string();
    for option in ["--config", "--upstream-ca"] {
        let offered = offered(&["sidentity", "run", option, &beginning]);
        assert_eq!(offered, [file.display().to_string()]);
    }
}

/// fish itself is not installed everywhere, so the test reads the script.
#[test]
fn fish_completes_the_shells() {
    let script = stdout(&["completions", "fish"]);
    let condition = "__fish_sidentity_using_subcommand";
    assert!(
        script.contains(&format!("function {condition}\n")),
        "{script}"
    );
    let line =
        format!("complete -c sidentity -n \"{condition} completions\" -f -a \"bash zsh fish\"");
    assert!(script.lines().any(|l| l == line), "{script}");
}

#[test]
fn every_shell_reads_its_completion_script() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = stdout(&["completions", shell]);
        for part in ["metadata-server", "log-level", "trace"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
        let file = folder.path().join(shell);
        fs::write(&file, script).unwrap();
        if let Some(output) = run_if_installed(shell, &[check], &file) {
            assert!(output.status.success(), "{output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        }
    }
}

#[test]
fn a_shell_without_a_completion_script_is_one_line() {
    let output = sidentity(&["completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "sidentity: SHELL: \"tcsh\" must be one of bash, zsh, fish\n"
    );
}

#[test]
fn every_command_has_a_man_page_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    man_pages::write(folder.path()).unwrap();
    let names = COMMANDS.map(|command| format!("sidentity-{command}"));
    for name in names.iter().map(String::as_str).chain(["sidentity"]) {
        let page = folder.path().join(format!("{name}.1"));
        let text = fs::read_to_string(&page).unwrap();
        for heading in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXAMPLES"] {
            assert!(text.contains(heading), "{name}: {heading}");
        }
        let lints: [(&str, &[&str]); 2] = [
            ("groff", &["-man", "-Tutf8", "-Kutf8", "-ww", "-z"]),
            ("mandoc", &["-T", "lint", "-W", "error"]),
        ];
        for (lint, arguments) in lints {
            if let Some(output) = run_if_installed(lint, arguments, &page) {
                assert!(output.status.success(), "{name}: {output:?}");
                assert!(output.stderr.is_empty(), "{name}: {output:?}");
            }
        }
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        COMMANDS.len() + 1
    );
}
