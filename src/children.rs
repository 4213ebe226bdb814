//! Short-lived child processes. Each has its own process group.
//!
//! A child and its group are killed when the result is no longer awaited, and when the process ends. Every child is
//! reaped. [`exec`](crate::cli) also waits for any child, as the first process of a container must. It passes the
//! status of a child that is registered here to [`ended`].

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait, waitpgid, waitpid,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::lock::lock;

/// The running children, and the receivers of their statuses.
static RUNNING: Mutex<BTreeMap<i32, oneshot::Sender<ExitStatus>>> = Mutex::new(BTreeMap::new());

/// The result of a child.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
}

/// The reason that there is no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("it cannot be started: {0}")]
    Spawn(io::Error),
    #[error("its output cannot be read: {0}")]
    Read(io::Error),
    #[error("its output is longer than {} KiB", .0 / 1024)]
    TooLong(usize),
}

/// A child and its process group. Both are killed when this is dropped.
struct Group {
    leader: Pid,
    status: oneshot::Receiver<ExitStatus>,
    is_reaped: bool,
}

/// Runs a command to its end and reads at most `longest` bytes of its standard output. Its standard input is empty. It
/// inherits no other descriptor than standard error.
pub(crate) async fn output(command: &mut Command, longest: usize) -> Result<Output, OutputError> {
    // Registered before the start. Otherwise the end of the child could be missed.
    let mut changed = signal(SignalKind::child()).map_err(OutputError::Spawn)?;
    let (mut group, stdout) = Group::spawn(command).map_err(OutputError::Spawn)?;
    let stdout = pipe::Receiver::from_owned_fd(stdout.into()).map_err(OutputError::Read)?;
    // One more byte detects output that is too long.
    let mut stdout = stdout.take(longest as u64 + 1);
    let mut bytes = Vec::new();
    let mut is_open = true;
    let status = loop {
        if let Some(status) = group.try_wait() {
            break status;
        }
        tokio::select! {
            read = stdout.read_buf(&mut bytes), if is_open => {
                is_open = read.map_err(OutputError::Read)? > 0;
                if bytes.len() > longest {
                    return Err(OutputError::TooLong(longest));
                }
            }
            _ = changed.recv() => {}
            Ok(status) = &mut group.status => {
                group.is_reaped = true;
                break status;
            }
        }
    };
    // Reads the output from before the child's end. Other processes may keep the pipe open, and the runtime may not
    // have seen it as readable yet.
    let mut rest = [0; 4096];
    while let Ok(read @ 1..) = rustix::io::read(stdout.get_ref(), &mut rest) {
        bytes.extend_from_slice(rest.get(..read).unwrap_or_default());
        if bytes.len() > longest {
            return Err(OutputError::TooLong(longest));
        }
    }
    Ok(Output {
        status,
        stdout: bytes,
    })
}

/// Accepts the status of a child from a caller that waited for any child.
pub(crate) fn ended(child: Pid, status: WaitStatus) {
    if status.stopped() {
        return;
    }
    if let Some(waiter) = running().remove(&child.as_raw_nonzero().get()) {
        let _ = waiter.send(ExitStatus::from_raw(status.as_raw()));
    }
}

/// Reaps every child that has ended, also orphans that the first process of a container inherits.
pub(crate) fn reap() {
    while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
        ended(child, status);
    }
}

/// Kills all children with their groups, because the process is about to end.
pub(crate) fn kill_all() {
    for child in running().keys() {
        if let Some(leader) = Pid::from_raw(*child) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn running() -> MutexGuard<'static, BTreeMap<i32, oneshot::Sender<ExitStatus>>> {
    lock(&RUNNING)
}

// === impl Group ===

impl Group {
    fn spawn(command: &mut Command) -> io::Result<(Self, ChildStdout)> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let (sender, status) = oneshot::channel();
        // Held until the child is registered, so that a caller that waits for any child finds it.
        let mut running = running();
        let mut child = command.spawn()?;
        let leader = Pid::from_child(&child);
        running.insert(leader.as_raw_nonzero().get(), sender);
        drop(running);
        let group = Self {
            leader,
            status,
            is_reaped: false,
        };
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((group, stdout))
    }

    /// Returns the status if the child has ended.
    fn try_wait(&mut self) -> Option<ExitStatus> {
        let status = match waitpid(Some(self.leader), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => ExitStatus::from_raw(status.as_raw()),
            Ok(None) | Err(Errno::INTR) => return None,
            // Another caller has reaped the child and will send its status.
            Err(_) => self.status.try_recv().ok()?,
        };
        self.is_reaped = true;
        Some(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.leader;
        // Also kills processes that the child has started.
        let _ = kill_process_group(leader, Signal::KILL);
        running().remove(&leader.as_raw_nonzero().get());
        if self.is_reaped {
            while let Ok(Some(_)) = waitpgid(leader, WaitOptions::NOHANG) {}
            return;
        }
        // The child ends at once, unless the kernel delays it. No caller waits for that.
        let reaper = std::thread::Builder::new().name("reaper".to_owned());
        let _ =
            reaper.spawn(move || while let Ok(Some(_)) = waitpgid(leader, WaitOptions::empty()) {});
    }
}

#[cfg(test)]
mod tests;
