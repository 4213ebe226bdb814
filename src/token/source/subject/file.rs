//! Reads a subject token from a file. Each exchange reads the file again, because its writer replaces it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::budget::no_token;
use super::format;
use crate::credentials::FileSource;
use crate::token::fetch_error::FetchError;

/// The maximum length of a file in bytes.
pub(super) const LONGEST: u64 = 64 * 1024;
/// The time to read a file. A network file system may not respond.
const PATIENCE: Duration = Duration::from_secs(3);

/// The reason that a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is longer than {} KiB", LONGEST / 1024)]
    TooLong,
    #[error("it cannot be read within {} s", PATIENCE.as_secs())]
    Slow,
}

pub(super) async fn token(source: &FileSource) -> Result<String, FetchError> {
    let content = read(&source.path)
        .await
        .map_err(|error| no_token(&named(source), &error))?;
    format::read(&source.format, &content).map_err(|error| no_token(&named(source), &error))
}

/// Names the file in a message.
pub(super) fn named(source: &FileSource) -> String {
    format!("the file {}", source.path.display())
}

/// Reads a whole file.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, Unread> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        File::open(path)?
            .take(LONGEST + 1)
            .read_to_end(&mut content)?;
        if content.len() as u64 > LONGEST {
            return Err(Unread::TooLong);
        }
        Ok(content)
    });
    match timeout(PATIENCE, reading).await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => Err(io::Error::other(error).into()),
        Err(_) => Err(Unread::Slow),
    }
}
