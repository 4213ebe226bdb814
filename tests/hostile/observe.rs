//! Measures a process from outside, while another caller sends it one request after the other.
//!
//! The caller and its upstream have their own threads, so that the load of a scenario does not delay them.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::support::sidecar::Sidecar;

/// The time after which a probe counts as not answered.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const BETWEEN_PROBES: Duration = Duration::from_millis(20);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Another caller of the sidecar, and the figures of the process.
pub(super) struct Observer {
    pid: u32,
    stopped: Arc<AtomicBool>,
    figures: watch::Receiver<Figures>,
}

/// The measurements.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The maximum resident memory so far, in MiB.
    pub(super) peak: u64,
    /// The current resident memory, in MiB.
    pub(super) resident: u64,
    /// The maximum number of open descriptors.
    pub(super) descriptors: usize,
    /// The current number of open descriptors.
    pub(super) descriptors_now: usize,
    /// The slowest probe.
    pub(super) slowest: Duration,
    probes: usize,
    failed: Vec<String>,
}

/// The limits of a scenario.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The limit of resident memory, in MiB.
    pub(super) peak: u64,
    pub(super) descriptors: usize,
}

/// The maximum time that another caller may wait.
pub(super) const LATENCY: Duration = Duration::from_secs(1);

// === impl Observer ===

impl Observer {
    /// Probes the forward proxy with calls to its own upstream.
    pub(super) fn of_proxy(sidecar: &Sidecar, fields: &str) -> Self {
        let upstream = upstream();
        let request = format!(
            "GET http://{upstream}/ HTTP/1.1\r\nHost: {upstream}\r\nConnection: close\r\n{fields}\r\n"
        );
        Self::start(sidecar.pid(), vec![(sidecar.proxy(), request)])
    }

    /// Probes the admin port.
    pub(super) fn of_admin(sidecar: &Sidecar) -> Self {
        Self::start(sidecar.pid(), vec![admin_probe(sidecar)])
    }

    /// Probes the forward proxy and the admin port in turn.
    pub(super) fn of_both(sidecar: &Sidecar) -> Self {
        let upstream = upstream();
        let request = format!(
            "GET http://{upstream}/ HTTP/1.1\r\nHost: {upstream}\r\nConnection: close\r\n\r\n"
        );
        Self::start(
            sidecar.pid(),
            vec![(sidecar.proxy(), request), admin_probe(sidecar)],
        )
    }

    fn start(pid: u32, targets: Vec<(SocketAddr, String)>) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, figures) = watch::channel(Figures::default());
        let stop = stopped.clone();
        std::thread::spawn(move || {
            for (address, request) in targets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                let answer = probe(*address, request);
                let took = began.elapsed();
                let descriptors = descriptors(pid);
                sender.send_modify(|figures| {
                    figures.probes += 1;
                    figures.slowest = figures.slowest.max(took);
                    figures.descriptors = figures.descriptors.max(descriptors);
                    if let Err(error) = answer {
                        figures
                            .failed
                            .push(format!("{address} after {took:?}: {error}"));
                    }
                });
                std::thread::sleep(BETWEEN_PROBES);
            }
        });
        Self {
            pid,
            stopped,
            figures,
        }
    }

    /// Waits until this number of further probes has ended.
    pub(super) async fn probes(&self, count: usize) {
        let mut figures = self.figures.clone();
        let wanted = figures.borrow().probes + count;
        let ended = figures.wait_for(|figures| figures.probes >= wanted);
        let ended = tokio::time::timeout(4 * PROBE_TIMEOUT, ended).await;
        assert!(ended.is_ok(), "no {count} more probes: {}", self.figures());
    }

    /// Returns the measurements so far.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = self.figures.borrow().clone();
        figures.peak = memory(self.pid, "VmHWM:");
        figures.resident = memory(self.pid, "VmRSS:");
        figures.descriptors_now = descriptors(self.pid);
        figures
    }

    /// Fails if a bound was exceeded, or a probe failed or took longer than a second.
    pub(super) fn within(&self, scenario: &str, bounds: Bounds) {
        let figures = self.figures();
        eprintln!("{scenario}: {figures}");
        assert!(figures.probes > 0, "{scenario}: no probe ended");
        assert!(figures.failed.is_empty(), "{scenario}: {figures:#?}");
        assert!(figures.slowest < LATENCY, "{scenario}: {figures}");
        assert!(figures.peak < bounds.peak, "{scenario}: {figures}");
        assert!(
            figures.descriptors <= bounds.descriptors,
            "{scenario}: {figures}"
        );
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peak,
            resident,
            descriptors,
            descriptors_now,
            slowest,
            probes,
            failed,
        } = self;
        let failed = failed.len();
        write!(
            f,
            "peak {peak} MiB, now {resident} MiB, {descriptors} descriptors, now {descriptors_now}, \
             {probes} probes of another caller: {failed} failed, slowest {slowest:?}"
        )
    }
}

fn admin_probe(sidecar: &Sidecar) -> (SocketAddr, String) {
    let request = "GET /liveness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    (sidecar.admin(), request.to_owned())
}

pub(super) fn probe(address: SocketAddr, request: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(std::io::Error::other(format!("answered {answer:?}")))
}

/// Answers each request on its own connection.
pub(super) fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = [0; 4096];
            let mut length = 0;
            while !head[..length].ends_with(b"\r\n\r\n") {
                match stream.read(&mut head[length..]) {
                    Ok(count @ 1..) => length += count,
                    _ => break,
                }
            }
            let _ = stream.write_all(ANSWER);
        }
    });
    address
}

/// Returns the number of open descriptors of a process.
pub(super) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns a line of the process's status, in MiB, rounded up.
pub(super) fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status
        .lines()
        .find(|found| found.starts_with(line))
        .unwrap();
    let kib: u64 = found.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib.div_ceil(1024)
}
