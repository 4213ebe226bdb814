//! One command of the binary, with an environment of its own.

use std::ffi::OsString;
use std::process::{Command, Output};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `sidentity` with these arguments. Nothing of this process's environment counts.
pub(crate) async fn sidentity<A, V>(args: A, env: V) -> Ran
where
    A: IntoIterator<Item: Into<OsString>>,
    V: IntoIterator<Item: Into<(OsString, OsString)>>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let env: Vec<(OsString, OsString)> = env.into_iter().map(Into::into).collect();
    // Off the test's thread, which serves what the command talks to.
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

/// A variable of the command's environment.
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
