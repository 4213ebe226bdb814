//! Runs one command of the binary with its own environment.

use std::ffi::OsString;
use std::process::{Command, Output};

/// The output and the exit status of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `sidentity` with these arguments, and without the environment of this process.
pub(crate) async fn sidentity<A, V>(args: A, env: V) -> Ran
where
    A: IntoIterator<Item: Into<OsString>>,
    V: IntoIterator<Item: Into<(OsString, OsString)>>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let env: Vec<(OsString, OsString)> = env.into_iter().map(Into::into).collect();
    // Not on the test's thread, which serves the command's requests.
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_sidentity"))
            .args(args)
            .env_clear()
            .envs(env)
            .output()
            .unwrap()
    });
    Ran::from(ran.await.unwrap())
}

/// Returns a variable of the command's environment.
pub(crate) fn var(name: &str, value: impl Into<OsString>) -> (OsString, OsString) {
    (name.into(), value.into())
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
