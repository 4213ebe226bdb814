//! Writes `sidentity(1)` and a man page for each command: `cargo run --example man-pages -- DIRECTORY`.
//!
//! It is not part of the sidecar's binary, so that packages can be built for another architecture than the builder's.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

const EXIT_STATUS: &str = "\
0 on success, 64 if the command line or the configuration is wrong, 1 for any other failure.
sidentity exec exits with the status of its command.";

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("man-pages: name the directory to write to");
        return ExitCode::from(64);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("man-pages: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes all pages into a directory, which is created if it does not exist.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = sidentity::cli::command();
    command.build();
    let version = command.get_version().unwrap_or_default().to_owned();
    let names: Vec<String> = command.get_subcommands().map(page_name).collect();
    for page in std::iter::once(&command).chain(command.get_subcommands()) {
        let name = page_name(page);
        let others = ["sidentity".to_owned()].into_iter().chain(names.clone());
        let others: Vec<String> = others.filter(|other| *other != name).collect();
        let text = page_text(page.clone(), &name, &version, &others)?;
        fs::write(folder.join(format!("{name}.1")), text)?;
    }
    Ok(())
}

/// `sidentity`, or `sidentity-COMMAND`.
fn page_name(command: &Command) -> String {
    match command.get_name() {
        "sidentity" => "sidentity".to_owned(),
        name => format!("sidentity-{name}"),
    }
}

fn page_text(
    mut command: Command,
    name: &str,
    version: &str,
    others: &[String],
) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let after_help = command.get_after_help().map(ToString::to_string);
    let after_help = after_help.unwrap_or_default();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let has_commands = command.has_subcommands();
    let man = Man::new(command.override_usage(usage))
        .title(name.to_uppercase())
        .source(format!("sidentity {version}"))
        .manual("sidentity manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    let (about_options, examples) = after_help
        .split_once("Examples:\n")
        .unwrap_or((&after_help, ""));
    section(&mut page, "ENVIRONMENT AND FILE", about_options)?;
    section(&mut page, "EXIT STATUS", EXIT_STATUS)?;
    if !examples.is_empty() {
        // Each example keeps its line.
        let examples = format!(".nf\n{}\n.fi", lines(examples));
        writeln!(page, ".SH EXAMPLES\n{examples}")?;
    }
    let others: Vec<String> = others.iter().map(|name| format!("{name}(1)")).collect();
    section(&mut page, "SEE ALSO", &others.join(", "))?;
    Ok(page)
}

fn section(page: &mut Vec<u8>, title: &str, text: &str) -> io::Result<()> {
    match text.trim() {
        "" => Ok(()),
        text => writeln!(page, ".SH {title}\n{}", lines(text)),
    }
}

fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| escape(line.trim())).collect();
    lines.join("\n").trim_end().to_owned()
}

/// Escapes a line for groff: a dash that can be copied, and no request at the beginning.
fn escape(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq");
    match text.starts_with('.') {
        true => format!("\\&{text}"),
        false => text,
    }
}
