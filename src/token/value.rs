//! A token, stored as the header value that is sent.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::clock::{Deadline, Now};
use crate::policy::AuthScheme;

/// Below this a token is refreshed. The metadata server issues a new token when the old one has four minutes left; an
/// earlier request returns the same one.
const STALE_BELOW: Duration = Duration::from_secs(225);
/// The longest random delay of a refresh after [`STALE_BELOW`], so that the keys are not all fetched at once.
const JITTER: Duration = Duration::from_secs(20);
/// Below this a request waits for a new token. The margin covers clock skew and slow calls.
const EXPIRING_BELOW: Duration = Duration::from_secs(30);
/// At or below this a token is not sent.
const EXPIRED_AT: Duration = Duration::from_secs(5);

const BEARER: &str = "Bearer ";
const BASIC_USER: &str = "oauth2accesstoken";

/// An access token or an ID token, with its expiry.
///
/// The value is stored in header values that are marked sensitive. `Debug` shows only the expiry.
pub struct Token {
    bearer: HeaderValue,
    basic: OnceLock<HeaderValue>,
    expires: Deadline,
    /// The token is fresh while it has more than this left.
    fresh_above: Duration,
}

/// How a token may be used, by its remaining lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Freshness {
    /// Not sent.
    Expired,
    /// Sent only if no new token can be fetched.
    Expiring,
    /// Sent at once, and refreshed in the background.
    Stale,
    /// Sent.
    Fresh,
}

// === impl Token ===

impl Token {
    /// Creates a token from its text. Returns `None` unless the text is visible ASCII and not empty.
    pub(super) fn new(value: &str, expires: Deadline, now: Now) -> Option<Self> {
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let fresh_for = expires.left(now).saturating_sub(STALE_BELOW);
        let jitter = JITTER.min(fresh_for / 10).mul_f64(fastrand::f64());
        Some(Self {
            bearer: sensitive(format!("{BEARER}{value}"))?,
            basic: OnceLock::new(),
            expires,
            fresh_above: STALE_BELOW.saturating_sub(jitter),
        })
    }

    /// Returns the header value that carries the token. It is marked sensitive.
    pub fn header(&self, scheme: AuthScheme) -> HeaderValue {
        match scheme {
            AuthScheme::Bearer => self.bearer.clone(),
            AuthScheme::Basic => self.basic.get_or_init(|| self.basic_header()).clone(),
        }
    }

    /// Returns the token's text. Only the `token` command prints it.
    pub fn reveal(&self) -> &str {
        self.bearer
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix(BEARER))
            .unwrap_or_default()
    }

    /// Returns the remaining lifetime by the clock that has less left. It is zero if the token has expired.
    pub(crate) fn left(&self, now: Now) -> Duration {
        self.expires.left(now)
    }

    /// Returns the expiry by the wall clock.
    pub(crate) fn expires_at(&self) -> SystemTime {
        self.expires.wall()
    }

    /// Compares the text of two tokens, not their expiry.
    pub(crate) fn same_value(&self, other: &Self) -> bool {
        self.bearer == other.bearer
    }

    pub(super) fn freshness(&self, now: Now) -> Freshness {
        let left = self.left(now);
        if left > self.fresh_above {
            Freshness::Fresh
        } else if left >= EXPIRING_BELOW {
            Freshness::Stale
        } else if left > EXPIRED_AT {
            Freshness::Expiring
        } else {
            Freshness::Expired
        }
    }

    /// Returns how long the token may still be sent.
    pub(super) fn time_to_expired(&self, now: Now) -> Duration {
        self.left(now).saturating_sub(EXPIRED_AT)
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
