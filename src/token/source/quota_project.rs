//! The projects whose quota calls of the IAM Credentials API use.

use http::HeaderValue;

use crate::credentials::CredentialFile;
use crate::policy::Principal;

/// `x-goog-user-project` of the calls that a credential file authorizes, by whose token they carry.
#[derive(Clone, Debug, Default)]
pub(super) struct QuotaProjects {
    /// [`Principal::Attached`].
    attached: Option<HeaderValue>,
    /// [`Principal::Source`].
    source: Option<HeaderValue>,
}

// === impl QuotaProjects ===

impl QuotaProjects {
    /// `attached` is the project of access tokens that go to upstreams.
    pub(super) fn of(file: &CredentialFile, attached: Option<&HeaderValue>) -> Self {
        let source = match file {
            CredentialFile::Impersonated(file) => file.source.quota_project(),
            file => file.quota_project(),
        };
        Self {
            attached: attached.cloned(),
            source: source.and_then(|project| HeaderValue::from_str(project).ok()),
        }
    }

    pub(super) fn of_principal(&self, principal: &Principal) -> Option<&HeaderValue> {
        match principal {
            Principal::Attached => self.attached.as_ref(),
            Principal::Source => self.source.as_ref(),
            _ => None,
        }
    }
}
