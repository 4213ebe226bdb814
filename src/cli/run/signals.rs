//! The signals that a running sidecar handles.

use std::io::{self, IsTerminal};

use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::children;
use crate::cli::exit::Exit;

/// Waits for SIGTERM and SIGINT.
pub(super) struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Waits for SIGHUP, SIGTSTP, SIGCONT and SIGCHLD, which do not end the process.
pub(super) struct ControlSignals {
    child: Signal,
    hangup: Signal,
    terminal_stop: Signal,
    proceed: Signal,
}

/// The action that a signal of [`ControlSignals`] requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// Read the configuration again.
    Reload,
    /// The process was stopped and continues.
    Resumed,
}

// === impl ShutdownSignals ===

impl ShutdownSignals {
    pub(super) fn new() -> Result<Self, Exit> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Cancels `stop` at the first signal. Completes with the second.
    pub(super) async fn cancel_then_wait(mut self, stop: CancellationToken) -> Number {
        self.next().await;
        stop.cancel();
        self.next().await
    }

    async fn next(&mut self) -> Number {
        tokio::select! {
            _ = self.terminate.recv() => Number::TERM,
            _ = self.interrupt.recv() => Number::INT,
        }
    }
}

// === impl ControlSignals ===

impl ControlSignals {
    pub(super) fn new() -> Result<Self, Exit> {
        Ok(Self {
            child: listen(SignalKind::child())?,
            hangup: listen(SignalKind::hangup())?,
            terminal_stop: listen(SignalKind::from_raw(Number::TSTP.as_raw()))?,
            proceed: listen(SignalKind::from_raw(Number::CONT.as_raw()))?,
        })
    }

    /// Returns the next action. Cloud Run sends SIGTSTP ten seconds before it moves a job's task, and SIGCONT
    /// afterwards. By default, SIGTSTP would stop the sidecar while the app still sends calls.
    pub(super) async fn next(&mut self) -> SignalAction {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return SignalAction::Reload,
                _ = self.proceed.recv() => return SignalAction::Resumed,
                // The first process of a container inherits orphans too.
                _ = self.child.recv() => children::reap(),
                _ = self.terminal_stop.recv() => {
                    if io::stdin().is_terminal() {
                        // Ctrl-Z in a terminal stops the process, as users expect.
                        let _ = kill_process(getpid(), Number::STOP);
                    } else {
                        tracing::info!("SIGTSTP: this instance is about to be frozen; serving until then");
                    }
                }
            }
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Exit> {
    signal(kind).map_err(|error| Exit::failed(format!("cannot wait for signals: {error}")))
}
