//! Gets a subject token from the output of a program. No shell is involved.

use std::process::{Command, ExitStatus};
use std::time::SystemTime;

use tokio::time::timeout;

use super::budget::no_token;
use super::file;
use crate::children::{self, Output};
use crate::credentials::{ExecutableSource, path_name};
use crate::token::fetch_error::FetchError;

mod response;

#[cfg(any(fuzzing, test))]
pub(super) use response::fuzz_executable_answer;
use response::{InvalidResponse, SubjectToken};

/// The maximum length of the output in bytes.
const LONGEST: usize = 64 * 1024;

/// Returns the token of the output file if it is still valid, else runs the program.
pub(super) async fn token(source: &ExecutableSource) -> Result<String, FetchError> {
    if let Some(issued) = cached(source).await {
        return Ok(issued.token);
    }
    let issued = run(source)
        .await
        .map_err(|why| no_token(&named(source), &why))?;
    Ok(issued.token)
}

/// Names the program in a message. Omits its arguments, because they may be secret.
pub(super) fn named(source: &ExecutableSource) -> String {
    format!("the executable {}", source.program())
}

/// Returns the token of the output file. The token is used only if the file has its expiry. Otherwise the program runs.
async fn cached(source: &ExecutableSource) -> Option<SubjectToken> {
    let issued = file_token(source).await?.ok()?;
    issued.expires.is_some().then_some(issued)
}

async fn file_token(source: &ExecutableSource) -> Option<Result<SubjectToken, String>> {
    let path = source.output_file.as_ref()?;
    Some(match file::read(path).await {
        Ok(content) => {
            SubjectToken::parse(&content, SystemTime::now()).map_err(|why| why.to_string())
        }
        Err(why) => Err(format!("the output_file {}: {why}", path_name(path))),
    })
}

async fn run(source: &ExecutableSource) -> Result<SubjectToken, String> {
    let mut command = Command::new(source.program());
    command.args(source.arguments());
    for (name, value) in &source.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = timeout(source.timeout, children::output(&mut command, LONGEST))
        .await
        .map_err(|_| {
            let seconds = source.timeout.as_secs_f32();
            format!("it was killed, because it had not ended within {seconds} s (timeout_millis)")
        })?;
    let Output { status, stdout } = output.map_err(|failed| failed.to_string())?;
    let answer = SubjectToken::parse(&stdout, SystemTime::now());
    if !status.success() {
        return Err(match answer {
            Err(why @ InvalidResponse::Unsuccessful { .. }) => format!("{}; {why}", ended(status)),
            _ => format!(
                "{}; its standard error is that of the sidecar",
                ended(status)
            ),
        });
    }
    // The program may write its response only to the output file.
    if stdout.trim_ascii().is_empty()
        && let Some(written) = file_token(source).await
    {
        return written;
    }
    answer.map_err(|why| why.to_string())
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended without a status".to_owned(),
    }
}
