//! Limits for messages that requests can cause.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The number of keys that are remembered. While all of them are recent, messages with other keys are suppressed.
const MAX_KEYS: usize = 256;

/// Admits a message once a minute for each key.
#[derive(Debug, Default)]
pub struct RateLimiter {
    admitted: Mutex<HashMap<Box<str>, Instant>>,
}

// === impl RateLimiter ===

impl RateLimiter {
    /// The time between two messages with the same key.
    pub(crate) const PAUSE: Duration = Duration::from_secs(60);

    /// Returns a limiter that has admitted no message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true at most once a minute for each key, and at most 256 times a minute for all keys.
    pub(crate) fn is_due(&self, key: &str) -> bool {
        self.is_due_at(key, Instant::now())
    }

    fn is_due_at(&self, key: &str, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < Self::PAUSE;
        let mut admitted = lock(&self.admitted);
        if admitted.get(key).is_some_and(recent) {
            return false;
        }
        if admitted.len() >= MAX_KEYS {
            admitted.retain(|_, at| recent(at));
        }
        if admitted.len() >= MAX_KEYS {
            return false;
        }
        admitted.insert(key.into(), now);
        true
    }
}

/// Admits a message every five seconds, and counts the suppressed ones.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Suppressed>);

#[derive(Debug, Default)]
struct Suppressed {
    admitted: Option<Instant>,
    suppressed: u64,
}

// === impl LogThrottle ===

impl LogThrottle {
    /// The time between two messages.
    pub(crate) const PAUSE: Duration = Duration::from_secs(5);

    /// Returns the number of messages suppressed since the last one if this message is admitted, else `None`.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state
            .admitted
            .is_some_and(|admitted| now.saturating_duration_since(admitted) < Self::PAUSE)
        {
            state.suppressed += 1;
            return None;
        }
        state.admitted = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// Admits ten messages a second, and counts the suppressed ones.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<LineWindow>);

#[derive(Debug, Default)]
struct LineWindow {
    began: Option<Instant>,
    admitted: u64,
    suppressed: u64,
}

// === impl LineLimit ===

impl LineLimit {
    /// The number of messages in a second.
    pub(crate) const MAX_LINES: u64 = 10;

    /// Returns the number of messages suppressed since the last one if this message is admitted, else `None`.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut window = lock(&self.0);
        let recent = window
            .began
            .is_some_and(|began| now.saturating_duration_since(began) < Duration::from_secs(1));
        if !recent {
            window.began = Some(now);
            window.admitted = 0;
        }
        if window.admitted >= Self::MAX_LINES {
            window.suppressed += 1;
            return None;
        }
        window.admitted += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_messages_a_second_are_admitted_and_the_rest_counted() {
        let (limited, start) = (LineLimit::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(limited.due_at(start), Some(0));
        }
        assert_eq!(limited.due_at(start), None);
        assert_eq!(limited.due_at(start + Duration::from_millis(999)), None);
        assert_eq!(limited.due_at(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limited.due_at(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_key_is_admitted_once_a_minute() {
        let (limiter, start) = (RateLimiter::new(), Instant::now());
        assert!(limiter.is_due_at("a", start));
        assert!(!limiter.is_due_at("a", start));
        assert!(limiter.is_due_at("b", start));
        assert!(!limiter.is_due_at("a", start + Duration::from_millis(59_999)));
        assert!(limiter.is_due_at("a", start + RateLimiter::PAUSE));
        assert!(!limiter.is_due_at("a", start + RateLimiter::PAUSE));
    }

    #[test]
    fn a_flood_of_messages_becomes_one_with_a_count() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(throttle.due_at(start), Some(0));
        assert_eq!(throttle.due_at(start), None);
        assert_eq!(throttle.due_at(start + LogThrottle::PAUSE / 2), None);
        assert_eq!(throttle.due_at(start + LogThrottle::PAUSE), Some(2));
        assert_eq!(throttle.due_at(start + 2 * LogThrottle::PAUSE), Some(0));
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_they_expire_after_a_minute() {
        let (limiter, start) = (RateLimiter::new(), Instant::now());
        let admitted = |at| {
            (0..10_000)
                .filter(|n| limiter.is_due_at(&format!("host-{n}"), at))
                .count()
        };
        assert_eq!(admitted(start), MAX_KEYS);
        assert_eq!(admitted(start + Duration::from_secs(1)), 0);
        assert_eq!(admitted(start + RateLimiter::PAUSE), MAX_KEYS);
        assert_eq!(limiter.admitted.lock().unwrap().len(), MAX_KEYS);
    }
}
