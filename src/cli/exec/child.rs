//! The child: started, signalled, waited for; and, as the first process of a container, all orphans reaped.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Exit;

/// Signals that are passed on. Those of a terminal reach the child without us.
const FORWARDED: [(Signal, bool); 10] = [
    (Signal::HUP, true),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::TSTP, true),
    (Signal::WINCH, true),
    (Signal::TERM, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    (Signal::CONT, false),
    (Signal::ALARM, false),
];

/// No such command, as shells say it.
const NOT_FOUND: u8 = 127;

/// It is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// A running child.
pub(super) struct Child {
    pid: Pid,
    signals: mpsc::Receiver<Signal>,
    changed: tokio::signal::unix::Signal,
}

impl Child {
    /// Starts it with our own terminal, standard streams and process group.
    pub(super) fn spawn(
        command: &[OsString],
        variables: Vec<(&'static str, String)>,
    ) -> Result<Self, Exit> {
        let failed = |error: io::Error| Exit::failed(format!("cannot wait for signals: {error}"));
        // Both before the child is there, or its end could be missed.
        let changed = signal(SignalKind::child()).map_err(failed)?;
        let signals = forwarded().map_err(failed)?;
        let Some((program, arguments)) = command.split_first() else {
            return Err(Exit::misused("CMD", "there is no command".to_owned()));
        };
        let child = Command::new(program)
            .args(arguments)
            .envs(variables)
            .spawn()
            .map_err(|error| {
                let status = match error.kind() {
                    io::ErrorKind::NotFound => NOT_FOUND,
                    _ => NOT_EXECUTABLE,
                };
                Exit::with(status, format!("{}: {error}", program.display()))
            })?;
        let pid = Pid::from_child(&child);
        Ok(Self {
            pid,
            signals,
            changed,
        })
    }

    /// Waits for its end, and reaps whatever else ends as our child.
    pub(super) async fn wait(mut self) -> Result<u8, Exit> {
        loop {
            if let Some(status) = self.reap()? {
                return Ok(code(status));
            }
            tokio::select! {
                _ = self.changed.recv() => {}
                Some(signal) = self.signals.recv() => {
                    // It may have ended just now; then its status is all that matters.
                    let _ = kill_process(self.pid, signal);
                }
            }
        }
    }

    fn reap(&self) -> Result<Option<ExitStatus>, Exit> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    return Ok(Some(ExitStatus::from_raw(status.as_raw())));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Exit::failed(format!("cannot wait: {error}"))),
            }
        }
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

/// All signals that are to be passed on, in the order in which they come.
fn forwarded() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(16);
    let terminal = io::stdin().is_terminal();
    for (number, of_terminal) in FORWARDED {
        let mut incoming = signal(SignalKind::from_raw(number.as_raw()))?;
        if of_terminal && terminal {
            // The terminal tells the whole group, the child among it: we must not die of it, but stop with it.
            tokio::spawn(async move {
                while incoming.recv().await.is_some() {
                    if number == Signal::TSTP {
                        let _ = kill_process(getpid(), Signal::STOP);
                    }
                }
            });
            continue;
        }
        let sender = sender.clone();
        tokio::spawn(async move {
            while incoming.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
