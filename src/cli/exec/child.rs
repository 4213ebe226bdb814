//! The child: started, signalled, waited for; and all that it leaves behind reaped, as by the first process of a container.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::signals::{Signals, in_foreground};
use crate::children;
use crate::cli::exit::Exit;

/// No such command, as shells say it.
const NOT_FOUND: u8 = 127;

/// It is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// A running child.
pub(super) struct Child {
    pid: Pid,
    changed: tokio::signal::unix::Signal,
}

impl Child {
    /// Starts it with our own terminal, standard streams and process group.
    pub(super) fn spawn(command: &mut Command) -> Result<Self, Exit> {
        // Before the child is there, or its end could be missed.
        let changed = signal(SignalKind::child())
            .map_err(|error| Exit::failed(format!("cannot wait for signals: {error}")))?;
        adopt();
        if command.get_program().is_empty() {
            let what = "the command is empty: name the program to run".to_owned();
            return Err(Exit::with(NOT_FOUND, what));
        }
        let child = command.spawn().map_err(|error| {
            let status = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            let program = command.get_program().display();
            Exit::with(status, format!("{program}: {error}"))
        })?;
        let pid = Pid::from_child(&child);
        Ok(Self { pid, changed })
    }

    /// Waits for its end, and reaps whatever else ends as our child.
    pub(super) async fn wait(mut self, signals: &mut Signals) -> Result<u8, Exit> {
        loop {
            if let Some(status) = self.reap()? {
                return Ok(code(status));
            }
            tokio::select! {
                _ = self.changed.recv() => {}
                Some(signal) = signals.next() => {
                    // It may have ended just now; then its status is all that matters.
                    let _ = kill_process(self.pid, signal);
                }
            }
        }
    }

    fn reap(&self) -> Result<Option<ExitStatus>, Exit> {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    if status.stopped() {
                        stop_too();
                    } else {
                        return Ok(Some(ExitStatus::from_raw(status.as_raw())));
                    }
                }
                Ok(Some((other, status))) => children::ended(other, status),
                Ok(None) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Exit::failed(format!("cannot wait: {error}"))),
            }
        }
    }
}

/// Whatever the child leaves behind becomes a child of ours: it is reaped, and still one of the family.
fn adopt() {
    // Without it orphans go to the first process, as ever.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

/// A shell that waits for us must see that its job has stopped, or the terminal is lost to the user.
fn stop_too() {
    if in_foreground() {
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

/// As shells tell it: 128 and the number where a signal ended it.
fn code(status: ExitStatus) -> u8 {
    let code = match status.code() {
        Some(code) => code,
        None => 128 + status.signal().unwrap_or(0),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
