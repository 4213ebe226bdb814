//! `impersonated_service_account`: a credential that can issue the tokens of a service account.

use std::sync::Arc;

use super::context::ReadContext;
use super::file;
use super::json_fields::{ExpectedValue, FieldError, Fields, is_email};
use super::{CredentialFile, EndpointUrl};

/// A credential that issues the tokens of a service account with the IAM Credentials API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpersonatedServiceAccount {
    /// `source_credentials`: the credential that calls the API.
    pub(crate) source: Box<CredentialFile>,
    /// The service account, from the URL.
    pub(crate) target: Arc<str>,
    /// `service_account_impersonation_url`, which ends with `:generateAccessToken`.
    pub(crate) url: EndpointUrl,
    /// `delegates`: e-mail addresses in the order of the chain.
    pub(crate) delegates: Vec<String>,
    /// `scopes`.
    pub(crate) scopes: Vec<String>,
    /// `quota_project_id` of the outer file.
    pub(crate) quota_project: Option<Arc<str>>,
    /// The universe domain.
    pub(crate) universe: Arc<str>,
}

// === impl ImpersonatedServiceAccount ===

impl ImpersonatedServiceAccount {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const URL: &str = "service_account_impersonation_url";
        const SOURCE: &str = "source_credentials";
        const DELEGATES: &str = "delegates";
        let source = file::nested(fields.object(SOURCE)?, SOURCE, context)?;
        if let CredentialFile::ExternalAccount(account) = &source
            && account.impersonation.is_some()
        {
            let prefix = fields.prefix_of(SOURCE);
            let nested = Fields::new(fields.object(SOURCE)?, &prefix);
            let expected = "no account, because the federated principal has to impersonate that of the outer URL itself,";
            return Err(nested.wrong(URL, ExpectedValue::Other(expected)));
        }
        let universe = match fields.has("universe_domain") {
            true => fields.universe(context)?,
            false => source.universe().to_owned(),
        };
        // The source's token would be sent to another universe, whose endpoints are another operator's.
        if universe != source.universe() {
            let expected = "the same universe as that of source_credentials (its universe_domain, by default googleapis.com)";
            return Err(fields.wrong("universe_domain", ExpectedValue::Other(expected)));
        }
        let url = fields
            .endpoint(URL, &universe, context)?
            .ok_or_else(|| fields.missing(URL, ExpectedValue::Url))?;
        let target = target(&url).ok_or_else(|| {
            let expected = "a URL that ends with /serviceAccounts/EMAIL:generateAccessToken";
            fields.wrong(URL, ExpectedValue::Other(expected))
        })?;
        let delegates = fields
            .texts(DELEGATES)?
            .iter()
            // gcloud writes resource names. The API accepts e-mail addresses.
            .map(|text| text.rsplit('/').next().unwrap_or(text).to_owned())
            .collect::<Vec<_>>();
        if !delegates.iter().all(|delegate| is_email(delegate)) {
            let expected = ExpectedValue::Other("a list of e-mail addresses of service accounts");
            return Err(fields.wrong(DELEGATES, expected));
        }
        Ok(Self {
            source: Box::new(source),
            target: target.into(),
            delegates,
            scopes: fields.texts("scopes")?,
            quota_project: fields.project("quota_project_id")?.map(Arc::from),
            universe: universe.into(),
            url,
        })
    }
}

/// Returns the account in `…/serviceAccounts/EMAIL:generateAccessToken`.
pub(super) fn target(url: &EndpointUrl) -> Option<String> {
    let path = url.destination().path();
    let (_, account) = path.rsplit_once("/serviceAccounts/")?;
    let account = account.strip_suffix(":generateAccessToken")?;
    let account = percent_encoding::percent_decode_str(account)
        .decode_utf8()
        .ok()?;
    is_email(&account).then(|| account.into_owned())
}
