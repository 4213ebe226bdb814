//! Advice for refusals of a person's login (RFC 6749, 5.2, and Google's codes for ended sessions).

use super::message::printable;
use crate::error::TokenFault;
use crate::token::retry::AttemptError;

/// Returns advice for a refused refresh token. `log_in` says how to log in again.
pub(super) fn hint(error: &AttemptError, log_in: &str) -> Option<String> {
    let what = match error.code.as_deref()? {
        "invalid_rapt" | "rapt_required" => {
            "the organisation ends sessions after a while, and this one has ended"
        }
        "invalid_grant" => "the login has expired or was revoked",
        "invalid_client" | "unauthorized_client" | "deleted_client" => {
            "the OAuth client of the login is not valid any more"
        }
        _ => return None,
    };
    Some(format!("{what}: {log_in}"))
}

/// Returns advice if the login may not get these scopes, which are separated by spaces.
pub(super) fn scope_hint(error: &AttemptError, scopes: &str) -> Option<String> {
    let refused = error.fault == TokenFault::InvalidScope && !scopes.is_empty();
    refused.then(|| {
        format!(
            "a login gets only scopes that it was made with: correct scope= of the rule or route, or `gcloud auth \
             application-default login --scopes={}`",
            printable(&scopes.replace(' ', ","))
        )
    })
}
