//! Signals that are meant for the child.

use std::fs::File;
use std::io;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
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
    incoming: mpsc::UnboundedReceiver<Incoming>,
}

struct Incoming {
    signal: Signal,
    /// The child has it too, if there is one: the terminal speaks to a whole group of processes.
    is_of_terminal: bool,
}

// === impl Signals ===

impl Signals {
    /// From now on they end this process no more.
    pub(super) fn new() -> io::Result<Self> {
        let numbers = FORWARDED.iter().map(|signal| signal.as_raw());
        let mut caught = SignalsInfo::<WithOrigin>::new(numbers)?;
        let (sender, incoming) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for origin in caught.forever() {
                    let known = FORWARDED
                        .iter()
                        .find(|signal| signal.as_raw() == origin.signal);
                    let incoming = known.map(|signal| Incoming {
                        signal: *signal,
                        is_of_terminal: origin.cause == Cause::Kernel,
                    });
                    if incoming.is_some_and(|incoming| sender.send(incoming).is_err()) {
                        return;
                    }
                }
            })?;
        Ok(Self { incoming })
    }

    /// The next one that the child has not got already.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        loop {
            let incoming = self.incoming.recv().await?;
            // Most tools take a second SIGINT for impatience.
            if !incoming.is_of_terminal {
                return Some(incoming.signal);
            }
        }
    }

    /// The next one that ends a process, while there is no child.
    pub(super) async fn ending(&mut self) -> Option<Signal> {
        const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        loop {
            let signal = self.incoming.recv().await?.signal;
            if ENDING.contains(&signal) {
                return Some(signal);
            }
        }
    }
}

/// Whether a shell waits for our group, and has lent it the terminal.
pub(super) fn in_foreground() -> bool {
    File::open("/dev/tty")
        .and_then(|terminal| Ok(tcgetpgrp(terminal)?))
        .is_ok_and(|group| group == getpgrp())
}
