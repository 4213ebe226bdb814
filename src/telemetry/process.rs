//! The `process_*` metrics, read from /proc at each scrape.
//!
//! Not every system has all of /proc (gVisor omits parts, other systems have none). A value that cannot be read is
//! missing from the response; all others are not affected.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

/// Clock ticks per second in /proc: USER_HZ, 100 on every Linux that user space sees (proc_pid_stat(5)).
const TICKS_PER_SECOND: f64 = 100.0;

const CPU: (&str, &str) = (
    "process_cpu_seconds_total",
    "User and system CPU time spent.",
);
const MAX_FDS: (&str, &str) = (
    "process_max_fds",
    "Maximum number of open file descriptors.",
);
const OPEN_FDS: (&str, &str) = ("process_open_fds", "Open file descriptors.");
const RESIDENT: (&str, &str) = ("process_resident_memory_bytes", "Resident memory.");
const START: (&str, &str) = (
    "process_start_time_seconds",
    "When the process started, in seconds since the epoch.",
);
const VIRTUAL: (&str, &str) = ("process_virtual_memory_bytes", "Virtual memory.");

/// Reads the directory of one process in /proc.
#[derive(Clone, Debug)]
pub(super) struct ProcessCollector {
    directory: PathBuf,
    /// The start according to this process. The start in /proc has the precision of `btime`, whole seconds that change
    /// when the clock is set. All counters began at zero at this time.
    started: SystemTime,
    descriptions: Vec<Desc>,
}

// === impl ProcessCollector ===

impl ProcessCollector {
    /// Creates the collector of this process, which counts as started now.
    pub(super) fn this() -> prometheus::Result<Self> {
        Self::at("/proc/self".into(), SystemTime::now())
    }

    fn at(directory: PathBuf, started: SystemTime) -> prometheus::Result<Self> {
        let mut descriptions = Vec::new();
        for (name, help) in [CPU, MAX_FDS, OPEN_FDS, RESIDENT, START, VIRTUAL] {
            descriptions.push(Desc::new(
                name.into(),
                help.into(),
                Vec::new(),
                Default::default(),
            )?);
        }
        Ok(Self {
            directory,
            started,
            descriptions,
        })
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.directory.join(file)).ok()
    }

    /// Returns the sum of `utime` and `stime`, the 14th and 15th field. The 2nd is a name in parentheses that may
    /// contain any character.
    fn cpu_seconds(&self) -> Option<f64> {
        let stat = self.read("stat")?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some((user + system) / TICKS_PER_SECOND)
    }

    fn open_fds(&self) -> Option<f64> {
        // One of the entries is the directory that is being read.
        let entries = fs::read_dir(self.directory.join("fd")).ok()?.count();
        Some(entries.saturating_sub(1) as f64)
    }

    /// Returns the soft limit, or `None` if it is `unlimited`.
    fn max_fds(&self) -> Option<f64> {
        let limits = self.read("limits")?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.read("status").unwrap_or_default();
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        [
            self.cpu_seconds().and_then(|seconds| counter(CPU, seconds)),
            self.max_fds().and_then(|fds| gauge(MAX_FDS, fds)),
            self.open_fds().and_then(|fds| gauge(OPEN_FDS, fds)),
            bytes(&status, "VmRSS:").and_then(|bytes| gauge(RESIDENT, bytes)),
            gauge(START, started.as_secs_f64()),
            bytes(&status, "VmSize:").and_then(|bytes| gauge(VIRTUAL, bytes)),
        ]
        .into_iter()
        .flatten()
        .flatten()
        .collect()
    }
}

/// Parses a line such as `VmRSS:     1234 kB` (proc_pid_status(5)).
fn bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn gauge((name, help): (&str, &str), value: f64) -> Option<Vec<MetricFamily>> {
    let gauge = Gauge::with_opts(Opts::new(name, help)).ok()?;
    gauge.set(value);
    Some(gauge.collect())
}

fn counter((name, help): (&str, &str), value: f64) -> Option<Vec<MetricFamily>> {
    let counter = Counter::with_opts(Opts::new(name, help)).ok()?;
    counter.inc_by(value);
    Some(counter.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the metrics of a /proc with these files.
    fn scrape(files: &[(&str, &str)]) -> Vec<(String, f64)> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let started = UNIX_EPOCH + std::time::Duration::from_millis(1_500);
        let process = ProcessCollector::at(directory.path().into(), started).unwrap();
        let value = |family: &MetricFamily| {
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        process
            .collect()
            .iter()
            .map(|family| (family.name().to_owned(), value(family)))
            .collect()
    }

    #[test]
    fn every_process_metric_is_read_from_proc() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 4 0 99 1 1";
        let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 4096                 files     \n";
        let metrics = scrape(&[
            ("stat", stat),
            ("status", status),
            ("limits", limits),
            ("fd/0", ""),
            ("fd/1", ""),
            ("fd/2", ""),
        ]);
        let expected = [
            ("process_cpu_seconds_total", 2.0),
            ("process_max_fds", 1024.0),
            ("process_open_fds", 2.0),
            ("process_resident_memory_bytes", 524_288.0),
            ("process_start_time_seconds", 1.5),
            ("process_virtual_memory_bytes", 2_097_152.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(metrics, expected);
    }

    #[test]
    fn the_start_time_is_reported_without_proc() {
        let expected = vec![("process_start_time_seconds".to_owned(), 1.5)];
        assert_eq!(scrape(&[]), expected);
    }

    #[test]
    fn malformed_files_in_proc_are_ignored() {
        let metrics = scrape(&[
            ("stat", "7 (x S 1"),
            ("status", "VmSize:\t-\nVmRSS:\t12 MB\n"),
            (
                "limits",
                "Max open files            unlimited  unlimited files\n",
            ),
        ]);
        let names: Vec<_> = metrics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["process_start_time_seconds"]);
    }
}
