//! `external_account`: workload and workforce identity federation. The Security Token Service (STS) exchanges a token
//! of another identity provider for a Google token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::EndpointUrl;
use super::context::ReadContext;
use super::impersonated::target;
use super::json_fields::{ExpectedValue, FieldError, Fields, VISIBLE};

mod aws;
mod command_line;
mod subject;
mod url;

#[cfg(test)]
pub(crate) use aws::AwsEnvironment;
pub(crate) use aws::{AwsContainer, AwsKeySource, AwsSource, AwsWebIdentity, ContainerToken};
pub(crate) use aws::{is_access_key_id, is_secret_access_key, is_session_token};
pub(crate) use subject::{CredentialSource, ExecutableSource, FileSource, TokenFormat, UrlSource};
pub(crate) use url::SourceUrl;

/// The range of `token_lifetime_seconds`, as in Google's libraries.
const LIFETIME: std::ops::RangeInclusive<u64> = 600..=43_200;
const DEFAULT_LIFETIME: u64 = 3_600;

/// A principal of workload or workforce identity federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// `audience`: the provider of the pool.
    pub(crate) audience: Arc<str>,
    /// `subject_token_type`.
    pub(crate) subject_token_type: Arc<str>,
    /// `credential_source`.
    pub(crate) source: CredentialSource,
    /// `token_url`: the endpoint that exchanges tokens.
    pub(crate) token_url: EndpointUrl,
    /// `client_id` and `client_secret`.
    pub(crate) client: Option<OAuthClient>,
    /// `service_account_impersonation_url`.
    pub(crate) impersonation: Option<AccountImpersonation>,
    /// `workforce_pool_user_project`.
    pub(crate) user_project: Option<Arc<str>>,
    /// `quota_project_id`.
    pub(crate) quota_project: Option<Arc<str>>,
    /// The universe domain.
    pub(crate) universe: Arc<str>,
}

/// The service account whose tokens the federated principal gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountImpersonation {
    /// The account, from the URL.
    pub(crate) account: Arc<str>,
    /// `service_account_impersonation_url`, which ends with `:generateAccessToken`.
    pub(crate) url: EndpointUrl,
    /// `service_account_impersonation.token_lifetime_seconds`.
    pub(crate) lifetime: Duration,
}

/// An OAuth client that authenticates at the token endpoint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OAuthClient {
    /// `client_id`.
    pub(crate) id: Arc<str>,
    /// `client_secret`. Empty if the file has none.
    pub(crate) secret: Arc<str>,
}

// === impl ExternalAccount ===

impl ExternalAccount {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const AUDIENCE: &str = "audience";
        const USER_PROJECT: &str = "workforce_pool_user_project";
        const TOKEN_TYPE: &str = "subject_token_type";
        const TOKEN_URL: &str = "token_url";
        let universe = fields.universe(context)?;
        let visible = |name: &str| {
            let text = fields.visible_text(name)?;
            text.ok_or_else(|| fields.missing(name, VISIBLE))
        };
        let audience = visible(AUDIENCE)?;
        if !is_audience(audience) {
            let expected =
                "a provider, //iam.googleapis.com/…/providers/NAME, or identitynamespace:…,";
            return Err(fields.wrong(AUDIENCE, ExpectedValue::Other(expected)));
        }
        let subject_token_type = visible(TOKEN_TYPE)?;
        if !subject_token_type.starts_with("urn:") || subject_token_type.len() > 256 {
            let expected = "a type such as urn:ietf:params:oauth:token-type:jwt";
            return Err(fields.wrong(TOKEN_TYPE, ExpectedValue::Other(expected)));
        }
        let token_url = match fields.endpoint(TOKEN_URL, &universe, context)? {
            Some(url) => url,
            None => EndpointUrl::of_google("sts", &universe, "/v1/token")
                .ok_or_else(|| fields.missing(TOKEN_URL, ExpectedValue::Url))?,
        };
        let user_project = fields.project(USER_PROJECT)?.map(Arc::from);
        if user_project.is_some() && !is_workforce(audience) {
            let expected = "no project, because the audience is not that of a workforce pool,";
            return Err(fields.wrong(USER_PROJECT, ExpectedValue::Other(expected)));
        }
        let impersonation = AccountImpersonation::read(fields, &universe, context)?;
        let known = subject::Known {
            audience,
            subject_token_type,
            account: impersonation.as_ref().map(|to| &*to.account),
        };
        Ok(Self {
            source: CredentialSource::read(fields, &known, context)?,
            audience: audience.into(),
            subject_token_type: subject_token_type.into(),
            token_url,
            client: OAuthClient::read(fields)?,
            impersonation,
            user_project,
            quota_project: fields.project("quota_project_id")?.map(Arc::from),
            universe: universe.into(),
        })
    }
}

/// Returns whether an audience belongs to a workforce pool: `//iam.googleapis.com/locations/…/workforcePools/…`.
fn is_workforce(audience: &str) -> bool {
    let path = audience
        .strip_prefix("//iam.")
        .and_then(|rest| rest.split_once("/locations/"));
    path.and_then(|(host, rest)| Some((host, rest.split_once('/')?.1)))
        .is_some_and(|(host, rest)| !host.contains('/') && rest.starts_with("workforcePools/"))
}

/// Returns whether an audience is that of a provider, or of a cluster of a fleet.
fn is_audience(audience: &str) -> bool {
    audience.len() <= 1024
        && (audience.starts_with("//iam.") || audience.starts_with("identitynamespace:"))
}

// === impl AccountImpersonation ===

impl AccountImpersonation {
    fn read(
        fields: Fields<'_>,
        universe: &str,
        context: &ReadContext<'_>,
    ) -> Result<Option<Self>, FieldError> {
        const URL: &str = "service_account_impersonation_url";
        const OPTIONS: &str = "service_account_impersonation";
        let Some(url) = fields.endpoint(URL, universe, context)? else {
            return Ok(None);
        };
        let account = target(&url).ok_or_else(|| {
            let expected = "a URL that ends with /serviceAccounts/EMAIL:generateAccessToken";
            fields.wrong(URL, ExpectedValue::Other(expected))
        })?;
        let lifetime = if fields.has(OPTIONS) {
            let prefix = fields.prefix_of(OPTIONS);
            let options = Fields::new(fields.object(OPTIONS)?, &prefix);
            options.number("token_lifetime_seconds", LIFETIME)?
        } else {
            None
        };
        Ok(Some(Self {
            account: account.into(),
            url,
            lifetime: Duration::from_secs(lifetime.unwrap_or(DEFAULT_LIFETIME)),
        }))
    }
}

// === impl OAuthClient ===

impl OAuthClient {
    fn read(fields: Fields<'_>) -> Result<Option<Self>, FieldError> {
        const ID: &str = "client_id";
        let secret = fields.visible_text("client_secret")?;
        match (fields.visible_text(ID)?, secret) {
            (Some(id), secret) => Ok(Some(Self {
                id: id.into(),
                secret: secret.unwrap_or_default().into(),
            })),
            (None, Some(_)) => Err(fields.missing(ID, ExpectedValue::Text)),
            (None, None) => Ok(None),
        }
    }
}

/// Omits the secret.
impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
