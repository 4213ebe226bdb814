//! Credential files of each type, as `serde_json` values.

use std::path::Path;

use serde_json::{Value, json};

use super::super::key::NoKey;
use super::error_response::insert;
use super::{AwsKeys, Google};

/// The hosts of the URLs in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// The hosts of Google or of another universe: `https://sts.UNIVERSE/…`.
    Universe(String),
    /// One base URL for all, without a final slash: `http://127.0.0.1:8980`.
    Base(String),
}

/// The source of the subject token in an `external_account` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectSource<'a> {
    /// AWS: the environment, else instance metadata.
    Aws,
    /// A program that prints the token.
    Executable(&'a str),
    /// A text file.
    File(&'a Path),
    /// The endpoint `/actions/id-token` at this base URL, which has no final slash.
    Url(&'a str),
}

// === impl Endpoints ===

impl Endpoints {
    /// Returns `https://SERVICE.UNIVERSE`, or the base URL.
    fn of(&self, service: &str) -> String {
        match self {
            Self::Universe(universe) => format!("https://{service}.{universe}"),
            Self::Base(base) => base.clone(),
        }
    }

    fn universe(&self) -> &str {
        match self {
            Self::Universe(universe) => universe,
            Self::Base(_) => "googleapis.com",
        }
    }
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::Universe("googleapis.com".to_owned())
    }
}

// === impl Google ===

impl Google {
    /// Returns a key file of the main account.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be written as PEM, which was never observed.
    pub fn service_account(&self, endpoints: &Endpoints) -> Result<Value, super::NoKeys> {
        let directory = self.directory();
        let email = directory.main();
        let private_key = self
            .account_key
            .private_pem()
            .map_err(|NoKey| super::NoKeys)?;
        let client_id = super::account_number(email);
        Ok(json!({
            "type": "service_account",
            "project_id": directory.project_id(),
            "private_key_id": self.account_key.id(),
            "private_key": private_key,
            "client_email": email,
            "client_id": client_id,
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": format!("{}/token", endpoints.of("oauth2")),
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": endpoints.universe(),
        }))
    }

    /// Returns the file that gcloud's login for Application Default Credentials writes. It does not name the default
    /// token endpoint.
    pub fn authorized_user(&self, endpoints: &Endpoints) -> Value {
        let project = self.directory().project_id().to_owned();
        let user = self.users().user.clone();
        let mut file = json!({
            "type": "authorized_user",
            "account": "",
            "client_id": user.client_id,
            "client_secret": user.client_secret,
            "refresh_token": user.refresh_token,
            "quota_project_id": project,
            "universe_domain": endpoints.universe(),
        });
        if let Endpoints::Base(base) = endpoints {
            insert(&mut file, "token_uri", format!("{base}/token"));
        }
        file
    }

    /// Returns a file that impersonates `target` with the credential of another file, through these delegates.
    pub fn impersonated(&self, endpoints: &Endpoints, source: &Value, delegates: &[&str]) -> Value {
        let delegates: Vec<String> = delegates
            .iter()
            .map(|account| format!("projects/-/serviceAccounts/{account}"))
            .collect();
        json!({
            "type": "impersonated_service_account",
            "delegates": delegates,
            "service_account_impersonation_url": self.impersonation_url(endpoints),
            "source_credentials": source,
            "universe_domain": endpoints.universe(),
        })
    }

    /// Returns a federation file that impersonates `target`. Without `service_account_impersonation_url` it
    /// impersonates no account.
    pub fn external_account(&self, endpoints: &Endpoints, source: SubjectSource<'_>) -> Value {
        let pool = self.directory().pool();
        let (provider, subject_token_type) = match source {
            SubjectSource::Aws => ("aws", "urn:ietf:params:aws:token-type:aws4_request"),
            _ => ("oidc", "urn:ietf:params:oauth:token-type:jwt"),
        };
        let audience = format!("{pool}/providers/{provider}");
        let credential_source = match source {
            SubjectSource::Aws => json!({
                "environment_id": "aws1",
                "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
                "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
                "regional_cred_verification_url":
                    "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
                "imdsv2_session_token_url": "http://169.254.169.254/latest/api/token",
            }),
            SubjectSource::Executable(command) => json!({
                "executable": {"command": command, "timeout_millis": 5000},
            }),
            SubjectSource::File(path) => json!({"file": path.display().to_string()}),
            SubjectSource::Url(base) => json!({
                "url": format!("{base}/actions/id-token?audience=https:{audience}"),
                "headers": {"Authorization": format!("Bearer {}", self.request_token)},
                "format": {"type": "json", "subject_token_field_name": "value"},
            }),
        };
        json!({
            "type": "external_account",
            "audience": audience,
            "subject_token_type": subject_token_type,
            "token_url": format!("{}/v1/token", endpoints.of("sts")),
            "service_account_impersonation_url": self.impersonation_url(endpoints),
            "credential_source": credential_source,
            "universe_domain": endpoints.universe(),
        })
    }

    /// Returns the login of a workforce user.
    pub fn external_account_authorized_user(&self, endpoints: &Endpoints) -> Value {
        let directory = self.directory();
        let (project, pool) = (
            directory.project_id().to_owned(),
            directory.workforce_pool(),
        );
        let user = self.users().workforce.clone();
        json!({
            "type": "external_account_authorized_user",
            "audience": format!("{pool}/providers/oidc"),
            "client_id": user.client_id,
            "client_secret": user.client_secret,
            "refresh_token": user.refresh_token,
            "token_url": format!("{}/v1/oauthtoken", endpoints.of("sts")),
            "token_info_url": format!("{}/v1/introspect", endpoints.of("sts")),
            "quota_project_id": project,
            "universe_domain": endpoints.universe(),
        })
    }

    /// Returns the keys for `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    pub fn aws_environment(&self) -> AwsKeys {
        self.aws.environment.clone()
    }

    /// Returns the value for `AWS_CONTAINER_AUTHORIZATION_TOKEN`. The credentials are at `/v2/credentials/ID`, with any
    /// ID.
    pub fn aws_container_authorization(&self) -> String {
        self.aws.container_authorization.clone()
    }

    fn impersonation_url(&self, endpoints: &Endpoints) -> String {
        let target = self.directory().address("target");
        let base = endpoints.of("iamcredentials");
        format!("{base}/v1/projects/-/serviceAccounts/{target}:generateAccessToken")
    }
}
