//! Opens files that must be regular ones.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Opens a regular file, and returns what the open file is. `None` if it is of another type.
///
/// A pipe does not block, also if it replaced a regular file after a check: the type is that of the open file.
///
/// # Errors
///
/// Fails if the file does not exist or cannot be opened.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    // Without NONBLOCK, opening a named pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A socket.
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    Ok(about.is_file().then_some((file, about)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No writer opens the pipe: with a blocking open the test would not end.
    #[test]
    fn only_a_regular_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [&*pipe, &socket, Path::new("/dev/null"), folder.path()] {
            assert!(open_regular(path).unwrap().is_none(), "{}", path.display());
        }
        let file = folder.path().join("file");
        assert!(open_regular(&file).is_err());
        std::fs::write(&file, "x").unwrap();
        assert_eq!(open_regular(&file).unwrap().unwrap().1.len(), 1);
    }
}
