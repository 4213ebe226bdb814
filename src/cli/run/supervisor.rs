//! Notifies the service manager (sd_notify(3)): systemd's `Type=notify` and `Type=notify-reload`.
//!
//! Each message is one datagram of text. The sd-notify crate reads an abstract socket's `@NAME` as a file.

use std::future::pending;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::Env;
use crate::diagnostics::LogEntry;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Supervisor {
    address: Option<SocketAddr>,
    /// The interval of watchdog messages (`WatchdogSec=`).
    watch: Option<Interval>,
}

// === impl Supervisor ===

impl Supervisor {
    /// Reads the environment: `NOTIFY_SOCKET` is a path, or `@NAME` in the abstract name space.
    pub(super) fn of(env: &Env) -> Self {
        let named = env.text("NOTIFY_SOCKET").ok().flatten();
        let address = named.and_then(|name| {
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(name),
            };
            address
                .inspect_err(
                    |error| tracing::warn!(%error, help = LogEntry::NotifySocketInvalid.page(), "NOTIFY_SOCKET is not a socket: {name:?}"),
                )
                .ok()
        });
        let watch = watchdog_timeout(env).filter(|_| address.is_some());
        Self {
            address,
            // Half of the timeout, as sd_watchdog_enabled(3) recommends.
            watch: watch.map(|timeout| {
                let mut watch = interval(timeout / 2);
                watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
                watch
            }),
        }
    }

    /// Completes when the next watchdog message is due. Never completes without a watchdog.
    pub(super) async fn watchdog_due(&mut self) {
        match &mut self.watch {
            Some(watch) => drop(watch.tick().await),
            None => pending().await,
        }
    }

    /// Sends the watchdog message.
    pub(super) fn alive(&self) {
        self.notify("WATCHDOG=1");
    }

    /// Notifies that requests are served.
    pub(super) fn ready(&self, status: &str) {
        self.notify(&format!("READY=1\nSTATUS={status}"));
    }

    /// Notifies that the configuration is reloaded. [`Self::ready`] must follow, even if the reload fails.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Notifies that the drain has begun.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1\nSTATUS=draining: still serving until nothing is in flight");
    }

    fn notify(&self, message: &str) {
        let Some(address) = &self.address else { return };
        let sent = send(address, message.as_bytes());
        if let Err(error) = sent {
            tracing::warn!(%error, help = LogEntry::NotifyFailed.page(), "the service manager (NOTIFY_SOCKET) cannot be notified");
        }
    }
}

/// Returns the manager's watchdog timeout, if it is for this process.
fn watchdog_timeout(env: &Env) -> Option<Duration> {
    let number = |name| env.text(name).ok().flatten()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|id| id != u64::from(std::process::id())) {
        return None;
    }
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 1)?;
    Some(Duration::from_micros(micros))
}

/// Sends without waiting, so that a manager that does not read cannot delay the app's calls.
fn send(address: &SocketAddr, message: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message, address).map(drop)
}
