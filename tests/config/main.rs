//! The configuration as a user meets it: `sidentity check`, its lines and its exit status.

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

use tempfile::TempDir;

/// What a run of `sidentity check` came to.
#[derive(Debug)]
struct Checked {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A directory with a file `c.yaml`, from which checks are run.
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

    /// The lines on stderr of a check that must fail.
    #[track_caller]
    fn refused(&self, flags: &[&str]) -> Vec<String> {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(64), "{checked:?}");
        assert_eq!(checked.stdout, "");
        checked.stderr.lines().map(str::to_owned).collect()
    }

    /// The YAML of a check that must succeed.
    #[track_caller]
    fn accepted(&self, flags: &[&str]) -> String {
        let checked = self.check(flags);
        assert_eq!(checked.status, Some(0), "{checked:?}");
        checked.stdout
    }
}
