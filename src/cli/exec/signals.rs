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
    incoming: mpsc::UnboundedReceiver<Signal>,
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
                    // The terminal speaks to a whole group of processes: to the child too, then, and most tools take a
                    // second SIGINT for impatience.
                    if origin.cause == Cause::Kernel {
                        continue;
                    }
                    let known = FORWARDED
                        .iter()
                        .find(|signal| signal.as_raw() == origin.signal);
                    if known.is_some_and(|signal| sender.send(*signal).is_err()) {
                        return;
                    }
                }
            })?;
        Ok(Self { incoming })
    }

    /// The next one that the child has not got already.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        self.incoming.recv().await
    }

    /// The next one that ends a process.
    pub(super) async fn ending(&mut self) -> Option<Signal> {
        const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        loop {
            let signal = self.next().await?;
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
