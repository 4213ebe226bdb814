//! Starts, signals and waits for the child, and reaps orphans, as the first process of a container does.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::forwarded_signals::{Signals, in_foreground};
use crate::children;
use crate::cli::exit::Exit;

/// The exit status of a command that does not exist, as in shells.
const NOT_FOUND: u8 = 127;

/// The exit status of a command that cannot be executed, as in shells.
const NOT_EXECUTABLE: u8 = 126;

/// A running child.
pub(super) struct Child {
    pid: Pid,
    changed: tokio::signal::unix::Signal,
}

impl Child {
    /// Starts the child with the same terminal, standard streams and process group.
    pub(super) fn spawn(command: &mut Command) -> Result<Self, Exit> {
        // Registered before the child starts, so that its end is not missed.
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

    /// Waits for the child's end, and reaps other children.
    pub(super) async fn wait(mut self, signals: &mut Signals) -> Result<u8, Exit> {
        loop {
            if let Some(status) = self.reap()? {
                return Ok(code(status));
            }
            tokio::select! {
                _ = self.changed.recv() => {}
                Some(signal) = signals.next() => {
                    // The child may have ended since. In that case only its status matters.
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

/// Makes this process the parent of orphans: they are reaped, and stay in the process tree.
fn adopt() {
    // If this fails, orphans become children of the first process, as usual.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

/// Stops this process too, so that a shell that waits for it regains the terminal.
fn stop_too() {
    if in_foreground() {
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

/// Converts an exit status as shells do: 128 plus the signal's number if a signal ended the child.
fn code(status: ExitStatus) -> u8 {
    let code = match status.code() {
        Some(code) => code,
        None => 128 + status.signal().unwrap_or(0),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
