//! The account that a credential file impersonates.

use std::sync::Arc;

use crate::credentials::{CredentialFile, ImpersonatedServiceAccount};
use crate::policy::{Principal, without_own};
use crate::token::source::iam::{self, RequiredRole, TargetAccount};

/// The account of an `impersonated_service_account` file. The file's source credential authorizes its calls.
#[derive(Clone, Debug)]
pub(in crate::token::source) struct FileTarget {
    pub(in crate::token::source) account: TargetAccount,
    /// The scopes of access tokens for rules without scopes.
    pub(in crate::token::source) scopes: Arc<[Arc<str>]>,
    pub(in crate::token::source) universe: Arc<str>,
    /// The role that the source credential needs.
    pub(in crate::token::source) role: RequiredRole,
}

// === impl FileTarget ===

impl FileTarget {
    /// Returns whether a principal is the file's account, impersonated by name. The source credential authorizes that
    /// too, because the account need not have a role on itself.
    pub(super) fn is_for(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Impersonated(impersonated) => {
                impersonated.base == Principal::Attached
                    && impersonated.chain.delegates().is_empty()
                    && impersonated.chain.target() == self.account.email()
            }
            _ => false,
        }
    }
}

impl From<&ImpersonatedServiceAccount> for FileTarget {
    fn from(file: &ImpersonatedServiceAccount) -> Self {
        let shared = |texts: &[String]| texts.iter().map(|text| Arc::from(&**text)).collect();
        let mut scopes = file.scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        let url = file.url.to_string();
        let delegates = without_own(&file.delegates, file.source.account());
        let delegates = delegates.map(|email| Arc::from(&**email)).collect();
        Self {
            account: TargetAccount::of_url(&url, &file.target, delegates, iam::LIFETIME),
            scopes: shared(&scopes),
            universe: Arc::clone(&file.universe),
            role: match file.source.is_federated() {
                true => RequiredRole::WorkloadIdentityUser,
                false => RequiredRole::TokenCreator,
            },
        }
    }
}

impl FileTarget {
    /// Returns the account of a credential file that names one in addition to the caller.
    pub(in crate::token::source) fn of(file: &CredentialFile) -> Option<Self> {
        match file {
            CredentialFile::ExternalAccount(file) => {
                let to = file.impersonation.as_ref()?;
                let url = to.url.to_string();
                Some(Self {
                    account: TargetAccount::of_url(&url, &to.account, [].into(), to.lifetime),
                    scopes: [].into(),
                    universe: Arc::clone(&file.universe),
                    role: RequiredRole::WorkloadIdentityUser,
                })
            }
            CredentialFile::Impersonated(file) => Some(file.into()),
            CredentialFile::AuthorizedUser(_)
            | CredentialFile::ExternalAccountAuthorizedUser(_)
            | CredentialFile::ServiceAccount(_) => None,
        }
    }
}
