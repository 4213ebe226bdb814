//! A token, held in the form in which it is sent.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::clock::{Deadline, Now};
use crate::policy::AuthScheme;

/// The metadata server makes a new token when the old one has four minutes left; asking before that gives the same one.
const STALE: Duration = Duration::from_secs(225);
/// How much later than [`STALE`] a refresh may begin, so that not all keys are asked for at once.
const JITTER: Duration = Duration::from_secs(20);
/// Below this a request waits for a new token, which covers skewed clocks and slow calls.
const WAIT: Duration = Duration::from_secs(30);
/// Below this a token is not sent at all.
const DEAD: Duration = Duration::from_secs(5);

const BEARER: &str = "Bearer ";
const BASIC_USER: &str = "oauth2accesstoken";

/// An access token or an ID token, with the moment at which it expires.
///
/// Its value is kept in header values that are marked sensitive; `Debug` shows the expiry alone.
pub struct Token {
    bearer: HeaderValue,
    basic: OnceLock<HeaderValue>,
    expires: Deadline,
    /// With more than this left it is fresh.
    fresh_above: Duration,
}

/// What may be done with a token, by what it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Age {
    /// Not sent.
    Dead,
    /// Sent only where no new one can be had.
    Expiring,
    /// Sent at once, and refreshed behind that.
    Stale,
    /// Sent.
    Fresh,
}

// === impl Token ===

impl Token {
    /// Takes a token's text; `None` unless it is visible ASCII and not empty.
    pub(super) fn new(value: &str, expires: Deadline, now: Now) -> Option<Self> {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let beyond = expires.left(now).saturating_sub(STALE);
        let jitter = JITTER.min(beyond / 10).mul_f64(fastrand::f64());
        Some(Self {
            bearer: sensitive(format!("{BEARER}{value}"))?,
            basic: OnceLock::new(),
            expires,
            fresh_above: STALE.saturating_sub(jitter),
        })
    }

    /// The header value that carries the token; marked sensitive.
    pub fn header(&self, scheme: AuthScheme) -> HeaderValue {
        match scheme {
            AuthScheme::Bearer => self.bearer.clone(),
            AuthScheme::Basic => self.basic.get_or_init(|| self.basic_header()).clone(),
        }
    }

    /// The token itself, for the `token` command and for nothing else.
    pub fn reveal(&self) -> &str {
        self.bearer
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix(BEARER))
            .unwrap_or_default()
    }

    /// How long it may still be used, by the clock that has less left; zero when expired.
    pub fn left(&self, now: Now) -> Duration {
        self.expires.left(now)
    }

    /// When it expires, as the wall clock tells it.
    pub fn expires_at(&self) -> SystemTime {
        self.expires.wall()
    }

    /// The same text, whatever the expiry.
    pub fn same_value(&self, other: &Self) -> bool {
        self.bearer == other.bearer
    }

    pub(super) fn age(&self, now: Now) -> Age {
        let left = self.left(now);
        if left > self.fresh_above {
            Age::Fresh
        } else if left >= WAIT {
            Age::Stale
        } else if left > DEAD {
            Age::Expiring
        } else {
            Age::Dead
        }
    }

    /// Until when it may be sent.
    pub(super) fn usable(&self, now: Now) -> Duration {
        self.left(now).saturating_sub(DEAD)
    }

    fn basic_header(&self) -> HeaderValue {
        let pair = format!("{BASIC_USER}:{}", self.reveal());
        // Base64 is always a valid header value.
        sensitive(format!("Basic {}", STANDARD.encode(pair))).unwrap_or_else(|| self.bearer.clone())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
