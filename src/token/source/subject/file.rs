//! Reads a subject token from a file. Each exchange reads the file again, because its writer replaces it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::budget::no_token;
use super::format;
use crate::credentials::{FileSource, open_regular, path_name};
use crate::lock::lock;
use crate::token::fetch_error::FetchError;

/// The maximum length of a file in bytes.
pub(super) const LONGEST: u64 = 64 * 1024;
/// The time to read a file. A network file system may not respond.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// The files that are being read, one reader each: a file system that hangs costs one thread, however often it is
/// tried.
static READERS: Mutex<BTreeMap<PathBuf, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The reason that a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Io(io::Error),
    /// The sandbox permits directories that exist at the start.
    #[error(
        "{0}; if its directory was created after the start, restart the sidecar or set --sandbox off"
    )]
    NoPermission(io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is longer than {} KiB", LONGEST / 1024)]
    TooLong,
    #[error("it cannot be read within {} s", READ_TIMEOUT.as_secs())]
    Slow,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NoPermission(error),
            _ => Self::Io(error),
        }
    }
}

pub(super) async fn token(source: &FileSource) -> Result<String, FetchError> {
    let content = read(&source.path)
        .await
        .map_err(|error| no_token(&named(source), &error))?;
    format::read(&source.format, &content).map_err(|error| no_token(&named(source), &error))
}

/// Names the file in a message.
pub(super) fn named(source: &FileSource) -> String {
    format!("the file {}", path_name(&source.path))
}

/// Reads a whole file.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, Unread> {
    read_by(path, content).await
}

/// Reads on a thread that nothing waits for, neither the runtime nor the process when it ends: a read cannot be
/// cancelled.
async fn read_by(
    path: &Path,
    read: impl FnOnce(&Path) -> Result<Vec<u8>, Unread> + Send + 'static,
) -> Result<Vec<u8>, Unread> {
    let path = path.to_owned();
    let reading = async move {
        let permit = reader(&path).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let (sender, done) = oneshot::channel();
        let thread = thread::Builder::new().name("token-file".to_owned());
        thread.spawn(move || {
            let result = read(&path);
            drop(permit);
            // The receiver may have been dropped.
            let _ = sender.send(result);
        })?;
        done.await.map_err(io::Error::other)?
    };
    timeout(READ_TIMEOUT, reading)
        .await
        .unwrap_or(Err(Unread::Slow))
}

/// Returns the permit to read a file.
fn reader(path: &Path) -> Arc<Semaphore> {
    let mut readers = lock(&READERS);
    if let Some(reader) = readers.get(path).and_then(Weak::upgrade) {
        return reader;
    }
    readers.retain(|_, reader| reader.strong_count() > 0);
    let reader = Arc::new(Semaphore::new(1));
    readers.insert(path.to_owned(), Arc::downgrade(&reader));
    reader
}

fn content(path: &Path) -> Result<Vec<u8>, Unread> {
    let (file, _) = open_regular(path)?.ok_or(Unread::NotRegular)?;
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(Unread::TooLong);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hanging_file_system_blocks_one_thread() {
        let path = Path::new("/hangs");
        let (release, hung) = mpsc::channel::<()>();
        let first = read_by(path, move |_| {
            let _ = hung.recv();
            Ok(Vec::new())
        });
        assert!(matches!(first.await, Err(Unread::Slow)));
        let second = read_by(path, |_| panic!("a second thread"));
        assert!(matches!(second.await, Err(Unread::Slow)));
        let other = tempfile::NamedTempFile::new().unwrap();
        tokio::time::resume();
        assert!(read(other.path()).await.unwrap().is_empty());
        drop(release);
        let third = read_by(path, |_| Ok(b"T".to_vec())).await;
        assert_eq!(third.unwrap(), b"T");
    }
}
