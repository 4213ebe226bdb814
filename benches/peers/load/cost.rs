//! The CPU time of processes, from /proc.

use std::fs;

use crate::support::Failure;

/// Linux reports hundredths of a second, independent of the kernel's tick (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// The user and system time so far of all threads, including ended ones.
pub(super) struct Cost(f64);

impl Cost {
    pub(super) fn read(pids: &[u32]) -> Result<Self, Failure> {
        let mut ticks = 0;
        for pid in pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name in parentheses may contain spaces. utime and stime are fields 14 and 15.
            let (_, rest) = stat.rsplit_once(')').ok_or("no /proc/PID/stat")?;
            let fields = rest.split_whitespace().skip(11).take(2);
            for field in fields {
                ticks += field.parse::<u64>()?;
            }
        }
        Ok(Self(ticks as f64 / TICKS))
    }

    /// Returns seconds.
    pub(super) fn since(&self, before: &Self) -> f64 {
        self.0 - before.0
    }
}
