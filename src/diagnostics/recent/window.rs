//! Counts events of the last 15 minutes, by the minute.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// The minutes that are counted, including the current one.
const MINUTES: u64 = 15;

/// One entry for each minute with events, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window(VecDeque<(u64, u64)>);

// === impl Window ===

impl Window {
    pub(super) fn add(&mut self, at: SystemTime) {
        let minute = minute(at);
        self.0.retain(|(counted, _)| is_within(*counted, minute));
        match self.0.back_mut() {
            Some((counted, count)) if *counted == minute => *count = count.saturating_add(1),
            _ => self.0.push_back((minute, 1)),
        }
    }

    /// Returns the number of events in the 15 minutes that end at this time.
    pub(crate) fn sum(&self, at: SystemTime) -> u64 {
        let now = minute(at);
        let within = self.0.iter().filter(|(minute, _)| is_within(*minute, now));
        within.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// Returns whether a minute is in the window. If the clock is set back, no entry expires.
fn is_within(counted: u64, now: u64) -> bool {
    now.saturating_sub(counted) < MINUTES
}

fn minute(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / 60)
}

/// Serializes the current number.
impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.sum(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_older_than_15_minutes_do_not_count() {
        let at = |minutes: u64| UNIX_EPOCH + Duration::from_secs(minutes * 60);
        let mut window = Window::default();
        for minutes in [100, 100, 101, 110] {
            window.add(at(minutes));
        }
        assert_eq!(window.sum(at(110)), 4);
        assert_eq!(window.sum(at(114)), 4);
        assert_eq!(window.sum(at(115)), 2);
        assert_eq!(window.sum(at(125)), 0);
        // A clock that is set back.
        window.add(at(90));
        assert_eq!(window.sum(at(90)), 5);
    }

    #[test]
    fn only_the_last_15_minutes_are_kept() {
        let mut window = Window::default();
        for minutes in 0..10_000 {
            window.add(UNIX_EPOCH + Duration::from_secs(minutes * 60));
        }
        assert_eq!(window.0.len(), 15);
    }
}
