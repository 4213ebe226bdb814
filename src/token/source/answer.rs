//! The token of an answer, unless the answer was read too late.

use crate::token::clock::Now;
use crate::token::parse::Malformed;
use crate::token::retry::{ATTEMPT, AttemptError};
use crate::token::value::{Age, Token};

/// Accepts the token of an attempt that began at `start`. If the instance was frozen while the answer lay in its buffers, and
/// the token is of no use any more, the next attempt gets a better one.
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
        return Err(AttemptError::timed_out("the answer was read too late"));
    }
    token.map_err(AttemptError::from)
}
