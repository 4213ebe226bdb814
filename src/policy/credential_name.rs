//! The name of the base credential in messages.

use std::fmt;
use std::sync::Arc;

use super::principal::{BASE_CREDENTIAL, Principal};
use crate::error::SourceKind;

/// The human-readable name of the base credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialName {
    /// The kind of source that issues its tokens.
    pub(crate) source: SourceKind,
    /// `the metadata server`, or the file with its kind, account, chain and project.
    pub(crate) text: Arc<str>,
    /// The account, person or federated principal that its tokens are issued to, if it is known.
    pub(crate) holder: Option<Arc<str>>,
    /// How a file's account is impersonated, if another principal calls for its tokens.
    pub(crate) chain: Option<FileChain>,
    /// The scopes of its access tokens if none are requested, if they are known to differ from the usual ones.
    pub(crate) scopes: Vec<Arc<str>>,
}

/// The chain of impersonation in a credential file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileChain {
    /// The name of the principal that impersonates the first account.
    pub(crate) caller: Arc<str>,
    /// Whether the caller is a federated principal.
    pub(crate) is_federated: bool,
    /// The delegates in the order of the chain, then the account of the file.
    pub(crate) accounts: Vec<Arc<str>>,
}

/// Returns the project of a user-managed service account, `NAME@PROJECT.iam.gserviceaccount.com`.
pub(crate) fn project_of(email: &str) -> Option<&str> {
    let (_, domain) = email.split_once('@')?;
    let (project, rest) = domain.split_once('.')?;
    (rest == "iam.gserviceaccount.com" && !project.is_empty()).then_some(project)
}

// === impl CredentialName ===

impl CredentialName {
    /// Returns whether it is a credential file.
    pub(crate) fn is_file(&self) -> bool {
        self.source != SourceKind::Metadata
    }

    /// Returns the name of its holder in a chain of impersonation.
    pub(crate) fn holder_or_default(&self) -> &str {
        self.holder.as_deref().unwrap_or(BASE_CREDENTIAL)
    }

    /// Returns the same name with the account that the metadata server has named since.
    #[must_use]
    pub(crate) fn held_by(&self, account: Option<Arc<str>>) -> Self {
        Self {
            holder: self.holder.clone().or(account),
            ..self.clone()
        }
    }

    /// Names the credential and the holder of a principal's tokens: kind, file, account, chain and project.
    pub(crate) fn identity(&self, principal: &Principal, project: Option<&str>) -> String {
        let mut text = self.text.to_string();
        if !self.is_file() {
            let account = self
                .holder
                .as_ref()
                .map(|account| format!("account {account}"));
            let project = project.map(|project| format!("project {project}"));
            let facts: Vec<String> = [account, project].into_iter().flatten().collect();
            if !facts.is_empty() {
                text = format!("{text} ({})", facts.join(", "));
            }
        }
        if let Some(via) = principal.chain_clause_with(self.holder_or_default()) {
            let account = principal.account().unwrap_or_default();
            text = format!("{text}; they are of {account}, {via}");
        }
        text
    }
}

impl Default for CredentialName {
    fn default() -> Self {
        Self {
            source: SourceKind::Metadata,
            text: "the metadata server".into(),
            holder: None,
            chain: None,
            scopes: Vec::new(),
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
