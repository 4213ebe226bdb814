//! `authorized_user`: a user's login, as `gcloud auth application-default login` writes it.

use std::fmt;
use std::sync::Arc;

use super::EndpointUrl;
use super::context::ReadContext;
use super::json_fields::{ExpectedValue, FieldError, Fields};
use crate::policy::{DEFAULT_UNIVERSE, is_gcloud_client};

/// A user's login.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizedUser {
    /// `client_id`: the OAuth client, and the audience of every ID token.
    pub(crate) client_id: Arc<str>,
    /// `client_secret`.
    pub(crate) client_secret: Arc<str>,
    /// `refresh_token`.
    pub(crate) refresh_token: Arc<str>,
    /// `token_uri`.
    pub(crate) token_url: EndpointUrl,
    /// `account`: the user's e-mail address, if the file has it.
    pub(crate) email: Option<Arc<str>>,
    /// `quota_project_id`.
    pub(crate) quota_project: Option<Arc<str>>,
}

// === impl AuthorizedUser ===

impl AuthorizedUser {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const UNIVERSE: &str = "universe_domain";
        if fields.universe(context)? != DEFAULT_UNIVERSE {
            let expected =
                ExpectedValue::Other("googleapis.com, the only universe of user credentials,");
            return Err(fields.wrong(UNIVERSE, expected));
        }
        let token_url = fields.endpoint("token_uri", DEFAULT_UNIVERSE, context)?;
        Ok(Self {
            client_id: fields.text("client_id")?.into(),
            client_secret: fields.text("client_secret")?.into(),
            refresh_token: fields.text("refresh_token")?.into(),
            token_url: match token_url {
                Some(url) => url,
                None => EndpointUrl::of_google("oauth2", DEFAULT_UNIVERSE, "/token")
                    .ok_or_else(|| fields.missing("token_uri", ExpectedValue::Url))?,
            },
            email: match fields.optional_text("account")? {
                Some(_) => Some(fields.email("account")?.into()),
                None => None,
            },
            quota_project: fields.project("quota_project_id")?.map(Arc::from),
        })
    }

    /// Returns whether the file belongs to gcloud's own OAuth client.
    pub(crate) fn is_of_gcloud(&self) -> bool {
        is_gcloud_client(&self.client_id)
    }
}

/// Omits the secrets.
impl fmt::Debug for AuthorizedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizedUser")
            .field("client_id", &self.client_id)
            .field("token_url", &self.token_url)
            .field("email", &self.email)
            .field("quota_project", &self.quota_project)
            .finish_non_exhaustive()
    }
}
