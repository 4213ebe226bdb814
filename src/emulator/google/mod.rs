//! Google's token endpoints, and those of AWS for federation, as one strict service.
//!
//! [`Google::respond`] answers a whole request and keeps no record. It opens no sockets. A request that an endpoint
//! does not define is an error here, even if the real endpoint would ignore it. This finds mistakes in clients under
//! test.
//!
//! # Examples
//!
//! ```
//! use std::time::SystemTime;
//!
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use sidentity::emulator::{Identity, google::Google};
//!
//! let google = Google::new(&Identity::default())?;
//! let request = Request::post("https://oauth2.googleapis.com/token").body(Bytes::new())?;
//! let response = google.respond(&request, SystemTime::now());
//! assert_eq!(response.status(), StatusCode::BAD_REQUEST);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod aws;
mod bearer;
mod directory;
mod endpoint;
mod error_response;
mod files;
mod form;
mod iam;
mod iap;
mod jwt;
mod oauth;
mod sigv4_verifier;
mod sts;
mod subject;
mod users;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};

pub use aws::AwsKeys;
pub use aws::{ACCOUNT as AWS_ACCOUNT, REGION as AWS_REGION, ROLE as AWS_ROLE};
pub(crate) use directory::Directory;
pub use directory::Role;
pub use endpoint::Endpoint;
pub use files::{Endpoints, SubjectSource};

use super::identity::ISSUER;
use super::identity::Identity;
use super::key::GeneratedKey;
use super::mint::{account_number, unix};
use super::signer::{AccessTokenInfo, TokenSigner};
use super::verifier::{IdTokenClaims, Verifier};
use aws::AwsEmulator;
use directory::GCLOUD_CLIENT;
use error_response::{ErrorResponse, success};
use oauth::HOUR;
use users::{User, Users};

use crate::lock::lock;

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// The emulated endpoints, with their accounts, users and keys.
pub struct Google {
    signer: Arc<TokenSigner>,
    /// The key in the main account's key file.
    account_key: GeneratedKey,
    /// Google's own key for every account, with which `signJwt` signs.
    system_key: GeneratedKey,
    /// The key of the external identity providers.
    idp_key: GeneratedKey,
    aws: AwsEmulator,
    request_token: String,
    /// The lifetime of tokens in seconds.
    lifetime: u64,
    directory: Mutex<Directory>,
    users: Mutex<Users>,
}

/// The system has no randomness for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot generate a key")]
pub struct NoKeys;

// === impl Google ===

impl Google {
    /// Creates the endpoints of one project, with new keys.
    ///
    /// # Errors
    ///
    /// Fails if the system has no randomness.
    pub fn new(identity: &Identity) -> Result<Self, NoKeys> {
        Self::with_signer(identity, Arc::new(TokenSigner::new().map_err(|_| NoKeys)?))
    }

    /// Like [`new`](Self::new), with the keys that sign tokens.
    pub(super) fn with_signer(
        identity: &Identity,
        signer: Arc<TokenSigner>,
    ) -> Result<Self, NoKeys> {
        let new_key = || GeneratedKey::generate().map_err(|_| NoKeys);
        let directory = Directory::new(identity);
        let user_scopes = [
            "openid",
            "https://www.googleapis.com/auth/userinfo.email",
            CLOUD_PLATFORM,
        ];
        let users = (|| {
            Ok(Users {
                user: User::new(&directory.user(), GCLOUD_CLIENT, &user_scopes)?,
                workforce: User::new("workforce-user", "workforce-client", &[CLOUD_PLATFORM])?,
            })
        })();
        Ok(Self {
            signer,
            account_key: new_key()?,
            system_key: new_key()?,
            idp_key: new_key()?,
            aws: AwsEmulator::new().map_err(|_: ErrorResponse| NoKeys)?,
            request_token: users::random().map_err(|_| NoKeys)?,
            lifetime: identity.lifetime.as_secs().min(HOUR),
            directory: Mutex::new(directory),
            users: Mutex::new(users.map_err(|_: ErrorResponse| NoKeys)?),
        })
    }

    /// Answers a request like the endpoint that its host and path name. Any other host is a service that is called with
    /// a token: the response names the token's member, or is 401.
    pub fn respond(&self, request: &Request<Bytes>, now: SystemTime) -> Response<Bytes> {
        match Endpoint::of(host(request), request.uri().path()) {
            Some(endpoint) => self.respond_as(endpoint, request, now),
            None => ErrorResponse::not_found().into_response(),
        }
    }

    /// Answers a request like this endpoint, for any host.
    pub(super) fn respond_as(
        &self,
        endpoint: Endpoint,
        request: &Request<Bytes>,
        now: SystemTime,
    ) -> Response<Bytes> {
        let now = unix(now);
        let json = match endpoint {
            Endpoint::Token => oauth::token(self, request, now),
            Endpoint::StsExchange => sts::exchange(self, request, now),
            Endpoint::StsRefresh => sts::refresh(self, request, now),
            Endpoint::GenerateAccessToken | Endpoint::GenerateIdToken | Endpoint::SignJwt => {
                iam::call(self, endpoint, request, now)
            }
            Endpoint::SubjectToken => subject::call(self, request, now),
            Endpoint::Api => self.api(request, now),
            Endpoint::AwsAssumeRole
            | Endpoint::AwsContainer
            | Endpoint::AwsMetadata
            | Endpoint::AwsSession => {
                let answer = aws::call(self, endpoint, request, now);
                return answer.unwrap_or_else(ErrorResponse::into_response);
            }
        };
        match json {
            Ok(json) => success(&json),
            Err(error) => error.into_response(),
        }
    }

    /// Returns a snapshot of the accounts and their roles.
    pub fn directory(&self) -> Directory {
        self.lock_directory().clone()
    }

    /// Grants a member a role on an account, which is created if necessary. A member that ends with `*` matches all
    /// members with this prefix.
    pub fn grant(&self, member: &str, account: &str, role: Role) {
        self.lock_directory().grant(member, account, role);
    }

    /// Revokes all roles on an account.
    pub fn revoke(&self, account: &str) {
        self.lock_directory().revoke(account);
    }

    fn lock_directory(&self) -> MutexGuard<'_, Directory> {
        lock(&self.directory)
    }

    /// Sets whether each use of a refresh token replaces it.
    pub fn rotate_refresh_tokens(&self, rotates: bool) {
        let mut users = self.users();
        users.user.rotates = rotates;
        users.workforce.rotates = rotates;
    }

    /// Returns a verifier of these tokens.
    pub fn verifier(&self) -> Verifier {
        self.signer.verifier()
    }

    fn access_token(
        &self,
        member: &str,
        scopes: Vec<String>,
        expiry: u64,
    ) -> Result<String, ErrorResponse> {
        let access = AccessTokenInfo {
            member: member.to_owned(),
            scopes,
            expiry,
        };
        self.signer
            .access_token(&access)
            .ok_or_else(ErrorResponse::internal)
    }

    fn id_token(
        &self,
        account: &str,
        audience: &str,
        email: bool,
        now: u64,
    ) -> Result<String, ErrorResponse> {
        self.sign_id_token(&self.id_claims(account, audience, email, now))
    }

    fn user_id_token(&self, email: &str, client: &str, now: u64) -> Result<String, ErrorResponse> {
        let claims = IdTokenClaims {
            azp: client.to_owned(),
            ..self.id_claims(email, client, true, now)
        };
        self.sign_id_token(&claims)
    }

    fn id_claims(&self, email: &str, audience: &str, with_email: bool, now: u64) -> IdTokenClaims {
        let number = account_number(email);
        IdTokenClaims {
            aud: audience.to_owned(),
            azp: number.clone(),
            email: with_email.then(|| email.to_owned()),
            email_verified: with_email.then_some(true),
            exp: now + self.lifetime,
            iat: now,
            iss: ISSUER.to_owned(),
            sub: number,
        }
    }

    fn sign_id_token(&self, claims: &IdTokenClaims) -> Result<String, ErrorResponse> {
        self.signer
            .id_token(claims)
            .ok_or_else(ErrorResponse::internal)
    }

    /// Returns the lifetime of a token and the lifetime in its response, in seconds. The real endpoints subtract a
    /// margin for the transfer.
    fn lifetime(&self) -> (u64, u64) {
        (self.lifetime, self.lifetime.saturating_sub(1).max(1))
    }

    const fn system_key(&self) -> &GeneratedKey {
        &self.system_key
    }

    const fn aws(&self) -> &AwsEmulator {
        &self.aws
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        lock(&self.users)
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Google").finish_non_exhaustive()
    }
}

/// Returns the host of a request, with its port.
pub fn host<B>(request: &Request<B>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let host = request.headers().get(HOST);
            host.and_then(|host| host.to_str().ok()).unwrap_or_default()
        }
    }
}
