//! Signals that are meant for the child.

use std::fs::File;
use std::io;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// All that can be passed on. Not among them: what nobody can catch; what says that this very process did something
/// wrong; and what the terminal says to one that reads or writes from the background.
const FORWARDED: &[Signal] = &[
    Signal::ALARM,
    Signal::CONT,
    Signal::HUP,
    Signal::INT,
    Signal::IO,
    #[cfg(target_os = "linux")]
    Signal::POWER,
    Signal::PROF,
    Signal::QUIT,
    Signal::TERM,
    Signal::TSTP,
    Signal::URG,
    Signal::USR1,
    Signal::USR2,
    Signal::VTALARM,
    Signal::WINCH,
];

/// They come in the order in which they were sent.
pub(super) struct Signals {
    incoming: mpsc::Receiver<Signal>,
}

// === impl Signals ===

impl Signals {
    /// From now on they end this process no more.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, incoming) = mpsc::channel(16);
        for number in FORWARDED.iter().copied() {
            let mut caught = signal(SignalKind::from_raw(number.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    if sender.send(number).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { incoming })
    }

    /// The next one that the child has not got already.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        loop {
            let number = self.incoming.recv().await?;
            if !is_of_terminal(number) || !in_foreground() {
                return Some(number);
            }
        }
    }

    /// The next one that ends a process.
    pub(super) async fn ending(&mut self) -> Option<Signal> {
        const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        loop {
            let number = self.incoming.recv().await?;
            if ENDING.contains(&number) {
                return Some(number);
            }
        }
    }
}

/// Terminals send it, and to a whole group of processes.
fn is_of_terminal(number: Signal) -> bool {
    [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::TSTP,
        Signal::WINCH,
    ]
    .contains(&number)
}

/// Whether the terminal speaks to our group: to the child too, then, and most tools take a second SIGINT for impatience.
pub(super) fn in_foreground() -> bool {
    File::open("/dev/tty")
        .and_then(|terminal| Ok(tcgetpgrp(terminal)?))
        .is_ok_and(|group| group == getpgrp())
}
