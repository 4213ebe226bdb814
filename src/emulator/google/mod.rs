//! Google's token endpoints, and those of AWS that federation needs, as one service that refuses what they would refuse.
//!
//! [`Google::respond`] answers a whole request and keeps no record of it; sockets are for others. What an endpoint does not
//! define is an error here, though the real one may ignore it: a client under test shall send what it means.
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
mod directory;
mod endpoint;
mod files;
mod form;
mod iam;
mod jwt;
mod oauth;
mod refusal;
mod sigv4;
mod sts;
mod subject;
mod users;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use serde::Deserialize;

pub use aws::{ACCOUNT as AWS_ACCOUNT, AwsKeys, REGION as AWS_REGION, ROLE as AWS_ROLE};
pub use directory::{Directory, Role};
pub use endpoint::Endpoint;
pub use files::{Endpoints, SubjectSource};

use super::ISSUER;
use super::identity::Identity;
use super::key::SigningKey;
use super::mint::{account_number, unix};
use super::signer::{Access, Signer};
use super::verifier::{Claims, Verifier};
use aws::Aws;
use directory::GCLOUD_CLIENT;
use jwt::Jwt;
use oauth::{HOUR, check_times};
use refusal::{Refusal, success};
use users::{User, Users};

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// The emulated endpoints, with the accounts, users and keys that they know.
pub struct Google {
    signer: Arc<Signer>,
    /// Of the key file of the main account.
    account_key: SigningKey,
    /// Google's own key for every account, by which `signJwt` signs.
    system_key: SigningKey,
    /// Of the identity providers outside of Google.
    idp_key: SigningKey,
    aws: Aws,
    request_token: String,
    directory: Mutex<Directory>,
    users: Mutex<Users>,
}

/// The system has no randomness to make keys from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key could be made")]
pub struct NoKeys;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelfSigned {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    iat: u64,
    exp: u64,
}

// === impl Google ===

impl Google {
    /// The endpoints for one project, with new keys.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn new(identity: &Identity) -> Result<Self, NoKeys> {
        Self::with_signer(identity, Arc::new(Signer::new().map_err(|_| NoKeys)?))
    }

    /// The same, with the keys that sign tokens.
    pub(super) fn with_signer(identity: &Identity, signer: Arc<Signer>) -> Result<Self, NoKeys> {
        let new_key = || SigningKey::generate().map_err(|_| NoKeys);
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
            aws: Aws::new().map_err(|_: Refusal| NoKeys)?,
            request_token: users::random().map_err(|_| NoKeys)?,
            directory: Mutex::new(directory),
            users: Mutex::new(users.map_err(|_: Refusal| NoKeys)?),
        })
    }

    /// Answers a request as the endpoint does that its host and path name. Other hosts are services that are called with a
    /// token: the answer names its member, or is 401.
    pub fn respond(&self, request: &Request<Bytes>, now: SystemTime) -> Response<Bytes> {
        let now = unix(now);
        let endpoint = Endpoint::of(host(request), request.uri().path());
        let answer = match endpoint {
            None => Err(Refusal::not_found()),
            Some(Endpoint::Token) => oauth::token(self, request, now).map(|json| success(&json)),
            Some(Endpoint::StsExchange) => {
                sts::exchange(self, request, now).map(|json| success(&json))
            }
            Some(Endpoint::StsRefresh) => {
                sts::refresh(self, request, now).map(|json| success(&json))
            }
            Some(
                endpoint @ (Endpoint::GenerateAccessToken
                | Endpoint::GenerateIdToken
                | Endpoint::SignJwt),
            ) => iam::call(self, endpoint, request, now).map(|json| success(&json)),
            Some(Endpoint::SubjectToken) => {
                subject::call(self, request, now).map(|json| success(&json))
            }
            Some(Endpoint::Api) => self.api(request, now),
            Some(
                endpoint @ (Endpoint::AwsAssumeRole
                | Endpoint::AwsContainer
                | Endpoint::AwsMetadata
                | Endpoint::AwsSession),
            ) => aws::call(self, endpoint, request, now),
        };
        answer.unwrap_or_else(Refusal::into_response)
    }

    /// Who exists, and who may act as whom, as of now.
    pub fn directory(&self) -> Directory {
        self.lock_directory().clone()
    }

    /// Gives a member a role on an account, which exists from now on. A member that ends with `*` stands for all that begin
    /// as it does.
    pub fn grant(&self, member: &str, account: &str, role: Role) {
        self.lock_directory().grant(member, account, role);
    }

    /// Takes all roles on an account away.
    pub fn revoke(&self, account: &str) {
        self.lock_directory().revoke(account);
    }

    fn lock_directory(&self) -> MutexGuard<'_, Directory> {
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets each use of a refresh token replace it.
    pub fn rotate_refresh_tokens(&self, rotates: bool) {
        let mut users = self.users();
        users.user.rotates = rotates;
        users.workforce.rotates = rotates;
    }

    /// Tells these tokens from others.
    pub fn verifier(&self) -> Verifier {
        self.signer.verifier()
    }

    /// What the bearer token of a request proves: one that this emulator issued, or a JWT that an account signed itself.
    pub fn access(&self, request: &Request<Bytes>, now: SystemTime) -> Option<Access> {
        self.bearer(request, unix(now))
    }

    fn bearer(&self, request: &Request<Bytes>, now: u64) -> Option<Access> {
        let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ")?;
        let access = self
            .signer
            .open(token)
            .or_else(|| self.self_signed(token, host(request), now))?;
        (now < access.expiry).then_some(access)
    }

    fn self_signed(&self, token: &str, host: &str, now: u64) -> Option<Access> {
        let jwt = Jwt::parse(token).ok()?;
        let claims: SelfSigned = jwt.claims().ok()?;
        // Google finds the key by its id alone.
        jwt.header.kid.as_ref()?;
        let is_valid = claims.iss == claims.sub
            && self.is_signed_by(&jwt, &claims.iss)
            && check_times(claims.iat, claims.exp, now).is_ok();
        let scopes = match (claims.scope, claims.aud) {
            (Some(scope), None) => scope.split_whitespace().map(str::to_owned).collect(),
            (None, Some(aud)) if aud == format!("https://{host}/") => {
                vec![CLOUD_PLATFORM.to_owned()]
            }
            _ => return None,
        };
        is_valid.then_some(Access {
            member: format!("serviceAccount:{}", claims.iss),
            scopes,
            expiry: claims.exp,
        })
    }

    /// Whether a key of this account signed it. A JWT without key id is tried with each.
    fn is_signed_by(&self, jwt: &Jwt<'_>, account: &str) -> bool {
        let of_account = (account == self.directory().main()).then_some(&self.account_key);
        of_account
            .into_iter()
            .chain([&self.system_key])
            .filter(|key| jwt.header.kid.as_deref().is_none_or(|kid| kid == key.id()))
            .any(|key| jwt.is_signed_by(key.public_key()))
            && self.directory().has_account(account)
    }

    fn is_of_idp(&self, jwt: &Jwt<'_>) -> bool {
        jwt.header.kid.as_deref() == Some(self.idp_key.id())
            && jwt.is_signed_by(self.idp_key.public_key())
    }

    /// A service that is called with a token: an access token, or an ID token for `https://HOST`.
    fn api(&self, request: &Request<Bytes>, now: u64) -> Result<Response<Bytes>, Refusal> {
        let host = host(request);
        if let Some(access) = self.bearer(request, now) {
            return Ok(success(&serde_json::json!({
                "host": host, "member": access.member, "scopes": access.scopes,
            })));
        }
        let headers = request.headers();
        let token = headers
            .get("x-serverless-authorization")
            .or_else(|| headers.get(AUTHORIZATION))
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now);
        let audience = format!("https://{host}");
        token
            .and_then(|token| self.verifier().verify(token, &audience, time).ok())
            .map(|claims| success(&serde_json::json!({"host": host, "id_token": claims})))
            .ok_or_else(Refusal::unauthenticated)
    }

    fn access_token(
        &self,
        member: &str,
        scopes: Vec<String>,
        expiry: u64,
    ) -> Result<String, Refusal> {
        let access = Access {
            member: member.to_owned(),
            scopes,
            expiry,
        };
        self.signer
            .access_token(&access)
            .ok_or_else(Refusal::internal)
    }

    fn id_token(
        &self,
        account: &str,
        audience: &str,
        email: bool,
        now: u64,
    ) -> Result<String, Refusal> {
        self.sign_id_token(&self.id_claims(account, audience, email, now))
    }

    fn user_id_token(&self, email: &str, client: &str, now: u64) -> Result<String, Refusal> {
        let claims = Claims {
            azp: client.to_owned(),
            ..self.id_claims(email, client, true, now)
        };
        self.sign_id_token(&claims)
    }

    fn id_claims(&self, email: &str, audience: &str, with_email: bool, now: u64) -> Claims {
        let number = account_number(email);
        Claims {
            aud: audience.to_owned(),
            azp: number.clone(),
            email: with_email.then(|| email.to_owned()),
            email_verified: with_email.then_some(true),
            exp: now + HOUR,
            iat: now,
            iss: ISSUER.to_owned(),
            sub: number,
        }
    }

    fn sign_id_token(&self, claims: &Claims) -> Result<String, Refusal> {
        self.signer.id_token(claims).ok_or_else(Refusal::internal)
    }

    const fn system_key(&self) -> &SigningKey {
        &self.system_key
    }

    const fn aws(&self) -> &Aws {
        &self.aws
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Google").finish_non_exhaustive()
    }
}

/// The host that a request names, with its port.
pub fn host(request: &Request<Bytes>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let host = request.headers().get(HOST);
            host.and_then(|host| host.to_str().ok()).unwrap_or_default()
        }
    }
}
