//! Credential files, and the search of Application Default Credentials (ADC) for them.
//!
//! This module does not use the network. It validates every value when a file is read, so that `check`, the start and a
//! reload report a wrong file as a configuration error. No message shows the content of a file.
//!
//! - `search`: finds the file that `--credentials` means.
//! - `file`: reads a file and detects its type. Each type has its own file.
//! - `fields`: reads the fields of a file's JSON. Errors name the field and the expected value.
//! - `endpoint`: validates the URLs of token, STS and IAM endpoints.

mod authorized_user;
mod context;
mod endpoint;
mod external_account;
mod external_account_authorized_user;
mod file;
mod holder;
mod impersonated;
mod json_fields;
mod key;
mod regular_file;
mod search;
mod service_account;
mod shown;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::SourceKind;
use crate::policy::{BaseCredential, CredentialName, ScopeSelection};

pub(crate) use authorized_user::AuthorizedUser;
pub use context::ReadContext;
pub(crate) use endpoint::{EndpointUrl, TrustedUrl};
#[cfg(test)]
pub(crate) use external_account::AwsEnvironment;
pub(crate) use external_account::{
    AwsContainer, AwsKeySource, AwsSource, AwsWebIdentity, ContainerToken, CredentialSource,
    ExecutableSource, ExternalAccount, FileSource, OAuthClient, SourceUrl, TokenFormat, UrlSource,
};
pub(crate) use external_account::{is_access_key_id, is_secret_access_key, is_session_token};
pub(crate) use external_account_authorized_user::ExternalAccountAuthorizedUser;
pub use file::CredentialFile;
pub(crate) use impersonated::ImpersonatedServiceAccount;
#[cfg(test)]
pub(crate) use key::tests;
pub(crate) use key::{InvalidKey, SigningKey};
pub(crate) use regular_file::open_regular;
pub(crate) use search::{
    Environment, Found, FoundBy, Mode, NO_METADATA_SERVER, nothing_found,
    nothing_found_without_server, search,
};
pub(crate) use service_account::ServiceAccount;
pub(crate) use shown::{TOKEN_BEGINNINGS, hidden, is_credential, is_key, path_name};

/// The source of the identity: the value of `--credentials` and the result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `--credentials`.
    pub(crate) mode: Mode,
    /// `--trust-credential-url`. Flags come first.
    pub(crate) trusted_urls: Vec<TrustedUrl>,
    /// The base credential.
    pub(crate) base: Base,
    /// Whether a variable says that there is a metadata server, and `--credentials` permits it.
    pub(crate) beside_metadata_server: bool,
    /// Every path of the search, so that a reload can check them again.
    pub(crate) looked_at: Vec<PathBuf>,
}

/// The credential from which every token is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// The metadata server.
    Metadata {
        /// The files and variables that were tried, if the metadata server may not exist.
        searched: Option<Arc<str>>,
    },
    /// A credential file.
    File(Arc<LoadedFile>),
}

/// A credential file that was found and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The setting that named it.
    pub(crate) found_by: FoundBy,
    /// Its content.
    pub(crate) file: CredentialFile,
}

// === impl Credentials ===

impl Credentials {
    /// Returns the credential file, if tokens come from one.
    pub(crate) fn file(&self) -> Option<&LoadedFile> {
        match &self.base {
            Base::File(file) => Some(file),
            Base::Metadata { .. } => None,
        }
    }

    /// Returns whether the base credential certainly exists: not a metadata server that must be probed first.
    pub(crate) fn is_certain(&self) -> bool {
        !matches!(self.base, Base::Metadata { searched: Some(_) })
    }

    /// Returns what tokens the base credential can get.
    pub(crate) fn base_credential(&self) -> BaseCredential {
        match self.file().map(|file| &file.file) {
            Some(CredentialFile::AuthorizedUser(user)) => BaseCredential::User {
                client_id: Arc::clone(&user.client_id),
            },
            Some(CredentialFile::ExternalAccount(file)) if file.impersonation.is_none() => {
                BaseCredential::Federated
            }
            Some(CredentialFile::ExternalAccountAuthorizedUser(_)) => BaseCredential::Workforce,
            _ => BaseCredential::Account,
        }
    }

    /// Returns the name of the credential.
    pub(crate) fn credential_name(&self) -> CredentialName {
        CredentialName {
            source: match self.file().map(|file| &file.file) {
                None => SourceKind::Metadata,
                Some(CredentialFile::ServiceAccount(_)) => SourceKind::ServiceAccount,
                Some(CredentialFile::AuthorizedUser(_)) => SourceKind::AuthorizedUser,
                Some(CredentialFile::Impersonated(_)) => SourceKind::Impersonation,
                Some(
                    CredentialFile::ExternalAccount(_)
                    | CredentialFile::ExternalAccountAuthorizedUser(_),
                ) => SourceKind::Sts,
            },
            text: self.to_string().into(),
            holder: self.file().map(|file| file.file.holder().into()),
            chain: self.file().and_then(|file| file.file.file_chain()),
            scopes: match self.file().map(|file| &file.file) {
                Some(CredentialFile::AuthorizedUser(_)) => ScopeSelection::LoginSubset,
                Some(CredentialFile::ExternalAccountAuthorizedUser(_)) => ScopeSelection::Login,
                Some(CredentialFile::Impersonated(file)) if !file.scopes.is_empty() => {
                    ScopeSelection::File(file.scopes.iter().map(|s| Arc::from(&**s)).collect())
                }
                _ => ScopeSelection::CloudPlatform,
            },
        }
    }

    /// Returns every file that a reload or a token source reads again.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = self.file().map(|file| &*file.path);
        let looked_at = self.looked_at.iter().map(PathBuf::as_path);
        own.into_iter().chain(looked_at).chain(self.token_file())
    }

    /// Returns the file that the credential file names for the subject token, or for the keys that sign it.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.subject_source().and_then(CredentialSource::file)
    }

    /// Returns the program that prints the subject tokens of the credential file.
    pub(crate) fn program(&self) -> Option<&str> {
        match self.subject_source()? {
            CredentialSource::Executable(executable) => Some(executable.program()),
            _ => None,
        }
    }

    fn subject_source(&self) -> Option<&CredentialSource> {
        let mut file = &self.file()?.file;
        while let CredentialFile::Impersonated(impersonated) = file {
            file = &impersonated.source;
        }
        match file {
            CredentialFile::ExternalAccount(account) => Some(&account.source),
            _ => None,
        }
    }
}

impl Default for Credentials {
    /// Returns the metadata server as a certain source.
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            trusted_urls: Vec::new(),
            base: Base::Metadata { searched: None },
            beside_metadata_server: false,
            looked_at: Vec::new(),
        }
    }
}

/// Describes the source of the identity, such as `the service_account file "/key.json" (account
/// a@p.iam.gserviceaccount.com, project p)`.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Metadata { .. } => f.write_str("the metadata server"),
            Base::File(file) => file.fmt(f),
        }
    }
}

// === impl LoadedFile ===

impl LoadedFile {
    /// Names the file for a message: `the service_account file "/key.json"`.
    pub(crate) fn name(&self) -> String {
        let path = self.path.display().to_string();
        format!("the {} file {path:?}", self.file.kind())
    }
}

impl fmt::Display for LoadedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        let facts = [
            match self.file.account() {
                Some(account) => Some(format!("account {account}")),
                None if self.file.is_federated() => Some(self.file.holder()),
                None => None,
            },
            self.file.chain(),
            self.file
                .project()
                .map(|project| format!("project {project}")),
            self.file
                .quota_project()
                .map(|project| format!("quota project {project}")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        match &*facts {
            [] => Ok(()),
            facts => write!(f, " ({})", facts.join(", ")),
        }
    }
}
