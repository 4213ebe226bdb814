//! The users whose refresh tokens are in credential files.

use super::super::key::hex;
use super::error_response::ErrorResponse;

/// The user of `authorized_user`, and the workforce user of `external_account_authorized_user`.
#[derive(Clone)]
pub(super) struct Users {
    pub(super) user: User,
    pub(super) workforce: User,
}

/// A user, and the OAuth client of the login.
#[derive(Clone)]
pub(super) struct User {
    pub(super) email: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) refresh_token: String,
    pub(super) scopes: Vec<String>,
    /// Whether each use of the refresh token replaces it.
    pub(super) rotates: bool,
}

// === impl User ===

impl User {
    pub(super) fn new(
        email: &str,
        client_id: &str,
        scopes: &[&str],
    ) -> Result<Self, ErrorResponse> {
        Ok(Self {
            email: email.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: format!("secret-{}", random()?),
            refresh_token: format!("1//refresh-{}", random()?),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            rotates: false,
        })
    }

    /// Replaces the refresh token if it rotates, and returns the new one.
    pub(super) fn rotate(&mut self) -> Result<Option<String>, ErrorResponse> {
        if !self.rotates {
            return Ok(None);
        }
        self.refresh_token = format!("1//refresh-{}", random()?);
        Ok(Some(self.refresh_token.clone()))
    }
}

/// Returns 128 random bits in hexadecimal.
pub(super) fn random() -> Result<String, ErrorResponse> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ErrorResponse::internal())?;
    Ok(hex(&bytes))
}
