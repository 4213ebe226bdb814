//! `external_account_authorized_user`: a login of a workforce pool, as `gcloud auth application-default login
//! --login-config` writes it.

use std::fmt;
use std::sync::Arc;

use super::context::ReadContext;
use super::json_fields::{ExpectedValue, FieldError, Fields};
use super::{EndpointUrl, OAuthClient};

/// A user's login of a workforce pool.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccountAuthorizedUser {
    /// `audience`: the provider of the pool, if the file has it.
    pub(crate) audience: Option<Arc<str>>,
    /// `refresh_token`.
    pub(crate) refresh_token: Arc<str>,
    /// `token_url`.
    pub(crate) token_url: EndpointUrl,
    /// `client_id` and `client_secret`.
    pub(crate) client: OAuthClient,
    /// `quota_project_id`.
    pub(crate) quota_project: Option<Arc<str>>,
    /// The universe domain.
    pub(crate) universe: Arc<str>,
}

// === impl ExternalAccountAuthorizedUser ===

impl ExternalAccountAuthorizedUser {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const URL: &str = "token_url";
        let universe = fields.universe(context)?;
        Ok(Self {
            audience: fields.visible_text("audience")?.map(Arc::from),
            refresh_token: fields.text("refresh_token")?.into(),
            token_url: fields
                .endpoint(URL, &universe, context)?
                .ok_or_else(|| fields.missing(URL, ExpectedValue::Url))?,
            client: OAuthClient {
                id: fields.text("client_id")?.into(),
                secret: fields.text("client_secret")?.into(),
            },
            quota_project: fields.project("quota_project_id")?.map(Arc::from),
            universe: universe.into(),
        })
    }
}

/// Omits the secrets.
impl fmt::Debug for ExternalAccountAuthorizedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccountAuthorizedUser")
            .field("token_url", &self.token_url)
            .field("client", &self.client)
            .field("quota_project", &self.quota_project)
            .finish_non_exhaustive()
    }
}
