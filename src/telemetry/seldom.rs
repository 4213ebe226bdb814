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

#[cfg(test)]
mod tests {
    use super::*;

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
