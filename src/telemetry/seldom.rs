//! Warnings that repeat with every request are said once a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys that are remembered; while all of them are recent, a new one is not said at all.
const MAX_KEYS: usize = 256;

/// Says yes to a key once a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Mutex<HashMap<Box<str>, Instant>>,
}

// === impl Seldom ===

impl Seldom {
    /// How long a key is not said again.
    pub const PAUSE: Duration = Duration::from_secs(60);

    /// Nothing was said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True at most once a minute for the same key, and at most 256 times a minute for all of them.
    pub fn is_due(&self, key: &str) -> bool {
        self.is_due_at(key, Instant::now())
    }

    fn is_due_at(&self, key: &str, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < Self::PAUSE;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(key).is_some_and(recent) {
            return false;
        }
        if said.len() >= MAX_KEYS {
            said.retain(|_, at| recent(at));
        }
        if said.len() >= MAX_KEYS {
            return false;
        }
        said.insert(key.into(), now);
        true
    }
}

/// Says yes once in a few seconds, and counts what was not said.
#[derive(Debug, Default)]
pub struct Sparse(Mutex<Suppressed>);

#[derive(Debug, Default)]
struct Suppressed {
    said: Option<Instant>,
    since: u64,
}

// === impl Sparse ===

impl Sparse {
    /// Between two lines.
    pub const PAUSE: Duration = Duration::from_secs(5);

    /// Whether it is said now; then, how many were not said since the last time.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < Self::PAUSE)
        {
            state.since += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

/// Says yes a few times a second, and counts what was not said.
#[derive(Debug, Default)]
pub struct Limited(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    said: u64,
    suppressed: u64,
}

// === impl Limited ===

impl Limited {
    /// In a second.
    pub const MOST: u64 = 10;

    /// Whether it is said now; then, how many were not said since the last time.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = window
            .began
            .is_some_and(|began| now.saturating_duration_since(began) < Duration::from_secs(1));
        if !recent {
            window.began = Some(now);
            window.said = 0;
        }
        if window.said >= Self::MOST {
            window.suppressed += 1;
            return None;
        }
        window.said += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_are_said_and_the_rest_is_counted() {
        let (limited, start) = (Limited::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(limited.due_at(start), Some(0));
        }
        assert_eq!(limited.due_at(start), None);
        assert_eq!(limited.due_at(start + Duration::from_millis(999)), None);
        assert_eq!(limited.due_at(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limited.due_at(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_key_is_said_once_a_minute() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        assert!(seldom.is_due_at("a", start));
        assert!(!seldom.is_due_at("a", start));
        assert!(seldom.is_due_at("b", start));
        assert!(!seldom.is_due_at("a", start + Duration::from_millis(59_999)));
        assert!(seldom.is_due_at("a", start + Seldom::PAUSE));
        assert!(!seldom.is_due_at("a", start + Seldom::PAUSE));
    }

    #[test]
    fn a_flood_of_lines_is_one_with_a_count() {
        let (sparse, start) = (Sparse::default(), Instant::now());
        assert_eq!(sparse.due_at(start), Some(0));
        assert_eq!(sparse.due_at(start), None);
        assert_eq!(sparse.due_at(start + Sparse::PAUSE / 2), None);
        assert_eq!(sparse.due_at(start + Sparse::PAUSE), Some(2));
        assert_eq!(sparse.due_at(start + 2 * Sparse::PAUSE), Some(0));
    }

    #[test]
    fn a_flood_of_keys_is_cut_and_forgotten_after_a_minute() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let said = |at| {
            (0..10_000)
                .filter(|n| seldom.is_due_at(&format!("host-{n}"), at))
                .count()
        };
        assert_eq!(said(start), MAX_KEYS);
        assert_eq!(said(start + Duration::from_secs(1)), 0);
        assert_eq!(said(start + Seldom::PAUSE), MAX_KEYS);
        assert_eq!(seldom.said.lock().unwrap().len(), MAX_KEYS);
    }
}
