//! Checks that a token can still be used when its response is read.

use crate::token::clock::Now;
use crate::token::parse::Malformed;
use crate::token::retry::{ATTEMPT_TIMEOUT, AttemptError};
use crate::token::value::{Freshness, Token};

/// Accepts the token of an attempt that began at `start`. If the instance was frozen before the response was read, the
/// token may be expired or expiring. The error is then retried, so that the next attempt gets a new token.
pub(super) fn check_lateness(
    token: Result<Token, Malformed>,
    start: Now,
    now: Now,
) -> Result<Token, AttemptError> {
    let spent = match &token {
        Ok(token) => token.freshness(now) <= Freshness::Expiring,
        Err(malformed) => *malformed == Malformed::Expired,
    };
    if spent && now.since(start) > ATTEMPT_TIMEOUT {
        return Err(AttemptError::timed_out("the response was read too late"));
    }
    token.map_err(AttemptError::from)
}
