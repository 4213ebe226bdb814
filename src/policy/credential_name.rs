//! The name of the base credential in messages.

use std::fmt;
use std::sync::Arc;

use super::decision::{CLOUD_PLATFORM, TokenKey, TokenKind};
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
    /// How the scopes of its access tokens are determined.
    pub(crate) scopes: ScopeSelection,
}

/// How the scopes of the base credential's access tokens are determined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ScopeSelection {
    /// A request names them. Without any, the token has `cloud-platform`.
    #[default]
    CloudPlatform,
    /// A request names them. Without any, the token has these of the credential file.
    File(Vec<Arc<str>>),
    /// The token has those that the login was made with, which its file does not name. A request cannot name any.
    Login,
    /// A request names some of the login's. Without any, the token has all of them.
    LoginSubset,
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

    /// Returns the scopes of a principal's access token for which these are requested. Returns `None` for those of a
    /// login, because they are not known.
    pub(crate) fn scopes(
        &self,
        principal: &Principal,
        requested: &[Arc<str>],
    ) -> Option<Vec<String>> {
        let texts = |scopes: &[Arc<str>]| scopes.iter().map(ToString::to_string).collect();
        let is_attached = *principal == Principal::Attached;
        match &self.scopes {
            ScopeSelection::Login if is_attached => None,
            _ if !requested.is_empty() => Some(texts(requested)),
            ScopeSelection::LoginSubset if is_attached => None,
            ScopeSelection::File(scopes) if is_attached => Some(texts(scopes)),
            _ => Some(vec![CLOUD_PLATFORM.to_owned()]),
        }
    }

    /// Returns the scopes of an access token, separated by spaces. Returns `None` for those of a login, and for another
    /// kind of token.
    pub(crate) fn scopes_text(&self, key: &TokenKey) -> Option<String> {
        match &key.kind {
            TokenKind::Access { scopes } => Some(self.scopes(&key.principal, scopes)?.join(" ")),
            TokenKind::Id { .. } | TokenKind::Jwt { .. } => None,
        }
    }

    /// Returns a note on the scopes of such a token, if they are those of a login.
    pub(crate) fn scopes_note(
        &self,
        principal: &Principal,
        requested: &[Arc<str>],
    ) -> Option<&'static str> {
        if self.scopes(principal, requested).is_some() {
            return None;
        }
        Some(match (&self.scopes, requested) {
            (ScopeSelection::Login, [_, ..]) => {
                "scope= has no effect: a token of a workforce login has the scopes that the login was made with"
            }
            _ => "the scopes are those that the login was made with",
        })
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
            scopes: ScopeSelection::default(),
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
