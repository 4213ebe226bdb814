//! Descriptions of the holder of a credential file.

use std::sync::Arc;

use super::CredentialFile;
use crate::policy::{FileChain, without_own};

// === impl CredentialFile ===

impl CredentialFile {
    /// Returns the account, person or federated principal that the file's tokens are issued to.
    pub(crate) fn holder(&self) -> String {
        match (self.account(), self) {
            (Some(account), _) => account.to_owned(),
            (None, Self::ExternalAccount(file)) => {
                format!("the federated principal of {}", file.audience)
            }
            (None, Self::ExternalAccountAuthorizedUser(file)) => match &file.audience {
                Some(audience) => format!("the person of the workforce pool {audience}"),
                None => "the person of the workforce pool who logged in".to_owned(),
            },
            (None, _) => "the person who logged in".to_owned(),
        }
    }

    /// Returns whether a federated principal calls for the tokens: the file's own, or that of its source credential.
    pub(crate) fn is_federated(&self) -> bool {
        match self {
            Self::ExternalAccount(_) | Self::ExternalAccountAuthorizedUser(_) => true,
            Self::Impersonated(file) => file.source.is_federated(),
            Self::AuthorizedUser(_) | Self::ServiceAccount(_) => false,
        }
    }

    /// Returns the principal that calls the IAM Credentials API for the account, if it is another one. For a source
    /// credential, it includes the type.
    pub(crate) fn source_holder(&self) -> Option<String> {
        match self {
            Self::ExternalAccount(file) => file
                .impersonation
                .as_ref()
                .map(|_| format!("the federated principal of {}", file.audience)),
            Self::Impersonated(file) => Some(file.source.holder()),
            _ => None,
        }
    }

    /// Returns the chain of impersonation, if another principal calls for the account's tokens.
    pub(super) fn file_chain(&self) -> Option<FileChain> {
        let delegates = match self {
            Self::Impersonated(file) => &*file.delegates,
            _ => &[],
        };
        let own = match self {
            Self::Impersonated(file) => file.source.account(),
            _ => None,
        };
        let delegates = without_own(delegates, own).map(|email| &**email);
        Some(FileChain {
            caller: self.source_holder()?.into(),
            is_federated: self.is_federated(),
            accounts: delegates.chain(self.account()).map(Arc::from).collect(),
        })
    }

    /// Describes how the account of the file is impersonated: the caller and the delegates.
    pub(super) fn chain(&self) -> Option<String> {
        let holder = self.source_holder()?;
        let (kind, delegates) = match self {
            Self::Impersonated(file) => (format!("the {} ", file.source.kind()), &*file.delegates),
            _ => (String::new(), &[] as &[String]),
        };
        let holder = holder.trim_start_matches("the ");
        let kind = if kind.is_empty() {
            "the ".to_owned()
        } else {
            kind
        };
        let through = match delegates {
            [] => String::new(),
            delegates => format!(" through {}", delegates.join(", then ")),
        };
        Some(format!("impersonated by {kind}{holder}{through}"))
    }
}
