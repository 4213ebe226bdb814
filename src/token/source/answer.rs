//! Checks that a token is still useful when its response is read.

use crate::token::clock::Now;
use crate::token::parse::Malformed;
use crate::token::retry::{ATTEMPT, AttemptError};
use crate::token::value::{Age, Token};

/// Accepts the token of an attempt that began at `start`. If the instance was frozen before the response was read, the
/// token may be useless. The next attempt then gets a new one.
pub(super) fn accept(
    token: Result<Token, Malformed>,
    start: Now,
    now: Now,
) -> Result<Token, AttemptError> {
    let spent = match &token {
        Ok(token) => token.age(now) <= Age::Expiring,
        Err(malformed) => *malformed == Malformed::Expired,
    };
    if spent && now.since(start) > ATTEMPT {
        return Err(AttemptError::timed_out("the response was read too late"));
    }
    token.map_err(AttemptError::from)
}
