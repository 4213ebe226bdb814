//! The signals that a running sidecar takes.

use std::io::{self, IsTerminal};

use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::children;
use crate::cli::exit::Exit;

/// SIGTERM and SIGINT: the end.
pub(super) struct RequestOutcome {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP, SIGTSTP, SIGCONT and SIGCHLD: it goes on.
pub(super) struct Passing {
    child: Signal,
    hangup: Signal,
    stop: Signal,
    proceed: Signal,
}

/// What a signal of [`Passing`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read the configuration again.
    Reload,
    /// We were stopped, and go on.
    Thawed,
}

// === impl RequestOutcome ===

impl RequestOutcome {
    pub(super) fn new() -> Result<Self, Exit> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Cancels `stop` at the first signal; completes with the number of the second.
    pub(super) async fn second(mut self, stop: CancellationToken) -> u8 {
        self.next().await;
        stop.cancel();
        self.next().await
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

// === impl Passing ===

impl Passing {
    pub(super) fn new() -> Result<Self, Exit> {
        Ok(Self {
            child: listen(SignalKind::child())?,
            hangup: listen(SignalKind::hangup())?,
            stop: listen(SignalKind::from_raw(Number::TSTP.as_raw()))?,
            proceed: listen(SignalKind::from_raw(Number::CONT.as_raw()))?,
        })
    }

    /// The next wish. Cloud Run sends SIGTSTP ten seconds before it moves a job's task, and SIGCONT after; by default it
    /// would stop us while the app still calls.
    pub(super) async fn next(&mut self) -> Wish {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Wish::Reload,
                _ = self.proceed.recv() => return Wish::Thawed,
                // As the first process of a container it gets those that a child has left behind, too.
                _ = self.child.recv() => children::reap(),
                _ = self.stop.recv() => {
                    if io::stdin().is_terminal() {
                        // Ctrl-Z: whoever pressed it means it.
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
