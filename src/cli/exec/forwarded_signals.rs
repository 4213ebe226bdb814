//! Signals that are forwarded to the child.

use std::fs::File;
use std::io;

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::sync::mpsc;

/// All signals that are forwarded. Excluded are signals that cannot be caught, signals that report a fault of this
/// process, and the signals of a terminal to a background process (SIGTTIN, SIGTTOU).
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

/// The received signals, in their order.
pub(super) struct Signals {
    incoming: mpsc::UnboundedReceiver<Incoming>,
}

struct Incoming {
    signal: Signal,
    /// The terminal sent the signal to the whole process group, so the child has it too.
    is_of_terminal: bool,
}

// === impl Signals ===

impl Signals {
    /// Catches the signals. From now on they do not end this process.
    pub(super) fn new() -> io::Result<Self> {
        // Under nohup(1), SIGHUP stays ignored, and the child inherits that.
        let is_kept = |signal: &&Signal| **signal == Signal::HUP && is_ignored(Signal::HUP);
        let caught = FORWARDED.iter().filter(|signal| !is_kept(signal));
        let numbers = caught.map(|signal| signal.as_raw());
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

    /// Returns the next signal that the child has not received.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        loop {
            let incoming = self.incoming.recv().await?;
            // Most programs exit immediately at a second SIGINT, so it must not be sent twice.
            if !incoming.is_of_terminal {
                return Some(incoming.signal);
            }
        }
    }

    /// Returns the next signal, before there is a child.
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

/// Returns whether this process ignores a signal (proc_pid_status(5)). False if the system does not say.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// Returns whether this process group is in the foreground of the terminal, so that a shell waits for it.
pub(super) fn in_foreground() -> bool {
    File::open("/dev/tty")
        .and_then(|terminal| Ok(tcgetpgrp(terminal)?))
        .is_ok_and(|group| group == getpgrp())
}
