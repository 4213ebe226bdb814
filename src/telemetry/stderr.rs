//! Writes log lines to stderr. A reader of a pipe that stalls must not stall calls, probes or the shutdown.

use std::io::{self, Stderr, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a line waits when the reader stalls. Further lines do not wait until it reads again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A pipe that is writable takes this many bytes without blocking (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// Stderr, without lines that its reader does not take in time.
#[derive(Debug)]
pub(super) struct PatientStderr {
    stderr: Stderr,
    /// The number of lines that were lost since the reader stalled.
    lost: u64,
    /// The number of lines that were lost before the reader went on.
    to_report: Arc<AtomicU64>,
    is_stalled: bool,
    /// A part of a line was written.
    is_torn: bool,
}

// === impl PatientStderr ===

impl PatientStderr {
    /// Adds the number of lost lines to `to_report` once lines are written again.
    pub(super) fn new(to_report: Arc<AtomicU64>) -> Self {
        Self {
            stderr: io::stderr(),
            lost: 0,
            to_report,
            is_stalled: false,
            is_torn: false,
        }
    }

    fn is_writable(&self) -> bool {
        let patience = match self.is_stalled {
            true => Duration::ZERO,
            false => PATIENCE,
        };
        let Ok(patience) = Timespec::try_from(patience) else {
            return true;
        };
        let mut fds = [PollFd::new(&self.stderr, PollFlags::OUT)];
        // After an error, the write reports it.
        poll(&mut fds, Some(&patience)).map_or(true, |ready| ready > 0)
    }
}

impl Write for PatientStderr {
    /// Writes a whole line, or drops what the reader does not take.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let start: &[u8] = if self.is_torn { b"\n" } else { b"" };
        for piece in start.chunks(PIECE).chain(line.chunks(PIECE)) {
            if !self.is_writable() {
                self.is_stalled = true;
                self.lost += 1;
                return Ok(line.len());
            }
            self.is_torn = true;
            self.stderr.write_all(piece)?;
        }
        self.is_stalled = false;
        self.is_torn = false;
        let lost = std::mem::take(&mut self.lost);
        self.to_report.fetch_add(lost, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
