//! `service_account`: the key of a service account.

use std::sync::Arc;

use super::context::ReadContext;
use super::json_fields::{ExpectedValue, FieldError, Fields};
use super::{EndpointUrl, SigningKey};

/// The key of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// `client_email`: the account.
    pub(crate) email: Arc<str>,
    /// `private_key`.
    pub(crate) key: SigningKey,
    /// `private_key_id`, which becomes the `kid` of JWTs.
    pub(crate) key_id: Option<Arc<str>>,
    /// `token_uri`.
    pub(crate) token_url: EndpointUrl,
    /// `project_id`.
    pub(crate) project: Option<Arc<str>>,
    /// `quota_project_id`.
    pub(crate) quota_project: Option<Arc<str>>,
    /// The universe domain.
    pub(crate) universe: Arc<str>,
}

// === impl ServiceAccount ===

impl ServiceAccount {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const KEY: &str = "private_key";
        let universe = fields.universe(context)?;
        let pem = fields
            .optional_text(KEY)?
            .ok_or_else(|| fields.missing(KEY, ExpectedValue::Key(super::InvalidKey::NotPem)))?;
        let key = SigningKey::from_pem(pem)
            .map_err(|error| fields.wrong(KEY, ExpectedValue::Key(error)))?;
        let token_url = fields.endpoint("token_uri", &universe, context)?;
        Ok(Self {
            email: fields.email("client_email")?.into(),
            key,
            key_id: fields.visible_text("private_key_id")?.map(Arc::from),
            token_url: match token_url {
                Some(url) => url,
                None => EndpointUrl::of_google("oauth2", &universe, "/token")
                    .ok_or_else(|| fields.missing("token_uri", ExpectedValue::Url))?,
            },
            project: fields.project("project_id")?.map(Arc::from),
            quota_project: fields.project("quota_project_id")?.map(Arc::from),
            universe: universe.into(),
        })
    }
}
