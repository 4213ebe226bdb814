//! The users whose refresh tokens are in credential files.

use super::super::key::hex;
use super::error_response::ErrorResponse;

const API_SCOPES: &str = "https://www.googleapis.com/auth/";

/// The scopes of Google Cloud that a login with `cloud-platform` may request in addition. A `*` stands for the rest of
/// the name. Google's library for Cloud Storage requests `devstorage.full_control` with a login of gcloud.
const COVERED: [&str; 25] = [
    "appengine.admin",
    "bigquery",
    "bigquery.*",
    "bigtable.*",
    "cloud-platform",
    "cloud-platform.read-only",
    "cloud_debugger",
    "cloudkms",
    "cloudruntimeconfig",
    "compute",
    "compute.readonly",
    "datastore",
    "devstorage.*",
    "iam",
    "logging.*",
    "monitoring",
    "monitoring.*",
    "ndev.clouddns.*",
    "pubsub",
    "service.management",
    "service.management.*",
    "servicecontrol",
    "spanner.*",
    "sqlservice.*",
    "trace.*",
];

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

    /// Returns whether the login has `cloud-platform`, and that covers this scope.
    pub(super) fn covers(&self, scope: &str) -> bool {
        let Some(name) = scope.strip_prefix(API_SCOPES) else {
            return false;
        };
        let has_platform = self
            .scopes
            .iter()
            .any(|own| own.strip_prefix(API_SCOPES) == Some("cloud-platform"));
        has_platform
            && COVERED
                .iter()
                .any(|covered| match covered.strip_suffix('*') {
                    Some(start) => name.len() > start.len() && name.starts_with(start),
                    None => name == *covered,
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
