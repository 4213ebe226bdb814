//! The configuration as a user sees it: the lines and the exit status of `sidentity check`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its files has failed"
)]

mod file;
mod flags;
mod printed;
mod sources;
mod warnings;

use std::path::Path;
use std::process::Command;

use sidentity::cli::load_flags;
use sidentity::config::{Diagnostic, DiagnosticId as Id, Env};
use tempfile::TempDir;

/// The id of a diagnostic, its location, and a part of its message: the quoted value, if there is one.
type Expected<'a> = (Id, &'a str, &'a str);

/// The result of a run of `sidentity check`.
#[derive(Debug)]
struct Checked {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A directory with a file `c.yaml`, in which checks run.
struct Setup {
    directory: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Setup {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        }
    }

    fn file(self, yaml: &str) -> Self {
        self.write("c.yaml", yaml)
    }

    fn write(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, args: &[&str]) -> Checked {
        let output = Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .envs(self.environment.iter().copied())
            .output()
            .unwrap();
        Checked {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn check(&self, flags: &[&str]) -> Checked {
        self.run(&[&["check"], flags].concat())
    }

    /// Returns the diagnostics of a check that must fail. `c.yaml` in the flags is the file of this directory.
    #[track_caller]
    fn diagnostics(&self, flags: &[&str]) -> Vec<Diagnostic> {
        let directory = format!("{}/", self.path().display());
        let flags = flags.iter().map(|flag| match *flag {
            "c.yaml" => format!("{directory}c.yaml"),
            flag => flag.to_owned(),
        });
        let env = Env::from_iter(self.environment.iter().copied());
        let mut diagnostics = load_flags(flags, &env).unwrap_err();
        for diagnostic in &mut diagnostics {
            diagnostic.place = diagnostic.place.replace(&directory, "");
            diagnostic.message = diagnostic.message.replace(&directory, "");
        }
        diagnostics
    }

    /// Asserts that a check fails with these diagnostics, in any order, and with no others.
    #[track_caller]
    fn expect(&self, flags: &[&str], expected: &[Expected<'_>]) {
        let mut found = self.diagnostics(flags);
        for (id, place, part) in expected {
            let index = found.iter().position(|diagnostic| {
                diagnostic.id == *id
                    && diagnostic.place == *place
                    && diagnostic.message.contains(part)
            });
            let index = index.unwrap_or_else(|| panic!("{id} at {place} with {part}: {found:#?}"));
            found.remove(index);
        }
        assert!(found.is_empty(), "{flags:?}: {found:#?}");
    }

    /// Returns the lines on stderr of a check that must fail.
    #[track_caller]
    fn refused(&self, flags: &[&str]) -> Vec<String> {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(64), "{checked:?}");
        assert_eq!(checked.stdout, "");
        checked.stderr.lines().map(str::to_owned).collect()
    }

    /// Returns the YAML of a check that must succeed.
    #[track_caller]
    fn accepted(&self, flags: &[&str]) -> String {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stdout
    }
}
