//! Writes log lines to stderr. A reader of a pipe that stalls must not stall calls, probes or the shutdown.

use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a line waits when the reader stalls. Further lines do not wait until it reads again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A pipe that is writable takes this many bytes without blocking (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// Stderr, without lines that its reader does not take in time. A line is written whole or not at all.
#[derive(Debug)]
pub(super) struct PatientStderr<W = Stderr> {
    stderr: W,
    /// The number of lines that were lost since the reader stalled.
    lost: u64,
    /// The number of lines that were lost before the reader went on.
    to_report: Arc<AtomicU64>,
    is_stalled: bool,
    /// The end of a line whose beginning was written.
    rest: Vec<u8>,
}

// === impl PatientStderr ===

impl PatientStderr {
    /// Adds the number of lost lines to `to_report` once lines are written again.
    pub(super) fn new(to_report: Arc<AtomicU64>) -> Self {
        Self::over(io::stderr(), to_report)
    }
}

impl<W: Write + AsFd> PatientStderr<W> {
    fn over(stderr: W, to_report: Arc<AtomicU64>) -> Self {
        Self {
            stderr,
            lost: 0,
            to_report,
            is_stalled: false,
            rest: Vec::new(),
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

    /// Writes what the reader takes. Returns the bytes that it does not take.
    fn write_pieces<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let mut left = bytes;
        while let Some((piece, rest)) = left.split_at_checked(PIECE.min(left.len()))
            && !piece.is_empty()
        {
            if !self.is_writable() {
                self.is_stalled = true;
                break;
            }
            self.stderr.write_all(piece)?;
            left = rest;
        }
        Ok(left)
    }
}

impl<W: Write + AsFd> Write for PatientStderr<W> {
    /// Writes the rest of an earlier line, then a whole line. Drops a line of which the reader takes nothing.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let earlier = std::mem::take(&mut self.rest);
        let rest = self.write_pieces(&earlier)?;
        if !rest.is_empty() {
            self.rest = rest.to_vec();
            self.lost += 1;
            return Ok(line.len());
        }
        let rest = self.write_pieces(line)?;
        if rest.is_empty() {
            self.is_stalled = false;
            let lost = std::mem::take(&mut self.lost);
            self.to_report.fetch_add(lost, Ordering::Relaxed);
        } else if rest.len() < line.len() {
            self.rest = rest.to_vec();
        } else {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Longer than a piece, and no multiple of it.
    const LINE: usize = 10_001;

    #[test]
    fn a_long_line_of_which_a_slow_reader_took_a_part_is_completed_before_the_next_line() {
        let (mut reader, writer) = io::pipe().unwrap();
        let to_report = Arc::new(AtomicU64::new(0));
        let mut stderr = PatientStderr::over(writer, to_report.clone());
        let mut received = Vec::new();
        let mut piece = [0; 3000];
        for turn in 0..60 {
            let line = vec![b'A' + turn % 26; LINE - 1];
            let written = stderr.write(&[&line[..], b"\n"].concat()).unwrap();
            assert_eq!(written, LINE);
            if turn > 20 {
                let read = reader.read(&mut piece).unwrap();
                received.extend_from_slice(&piece[..read]);
            }
        }
        // The pipe holds less than the lines, so some were lost.
        let mut rest = vec![0; 256 * 1024];
        let read = reader.read(&mut rest).unwrap();
        received.extend_from_slice(&rest[..read]);
        stderr.write_all(b"end\n").unwrap();
        drop(stderr);
        reader.read_to_end(&mut received).unwrap();
        let lines: Vec<_> = received.split_inclusive(|b| *b == b'\n').collect();
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(*last, b"end\n");
        for line in lines {
            let is_whole = line.len() == LINE && line[1..LINE - 1].iter().all(|b| *b == line[0]);
            assert!(is_whole, "{} bytes of {}", line.len(), char::from(line[0]));
        }
        let lost = to_report.load(Ordering::Relaxed);
        assert_eq!(lines.len() as u64 + lost, 60);
        assert!(lost > 0);
    }
}
