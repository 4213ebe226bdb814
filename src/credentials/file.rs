//! Reads a credential file and detects its type.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::context::ReadContext;
use super::json_fields::{ExpectedValue, FieldError, Fields, is_visible};
use super::regular_file::open_regular;
use super::shown::{hidden, path_name};
use super::{
    AuthorizedUser, ExternalAccount, ExternalAccountAuthorizedUser, ImpersonatedServiceAccount,
    ServiceAccount,
};
use crate::policy::project_of;

/// A credential file of one of the supported types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialFile {
    /// `authorized_user`.
    AuthorizedUser(AuthorizedUser),
    /// `external_account`.
    ExternalAccount(Box<ExternalAccount>),
    /// `external_account_authorized_user`.
    ExternalAccountAuthorizedUser(ExternalAccountAuthorizedUser),
    /// `impersonated_service_account`.
    Impersonated(ImpersonatedServiceAccount),
    /// `service_account`.
    ServiceAccount(ServiceAccount),
}

/// The reason that a file cannot be used: its path, its type if known, the field, and the expected value. It never
/// contains the file's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);

/// The maximum length in bytes. A credential file usually has about 3 KiB.
const LONGEST: u64 = 256 * 1024;

const SERVICE_ACCOUNT: &str = "service_account";
const AUTHORIZED_USER: &str = "authorized_user";
const IMPERSONATED: &str = "impersonated_service_account";
const EXTERNAL_ACCOUNT: &str = "external_account";
const EXTERNAL_ACCOUNT_AUTHORIZED_USER: &str = "external_account_authorized_user";
const SUPPORTED: &str = "service_account, authorized_user, impersonated_service_account, external_account, \
     external_account_authorized_user";

// === impl CredentialFile ===

impl CredentialFile {
    /// Reads a file. The warnings concern the file itself, such as its permissions.
    ///
    /// # Errors
    ///
    /// Fails if the file does not exist, cannot be read, or is not a credential of a supported type.
    pub(crate) fn read(
        path: &Path,
        context: &ReadContext<'_>,
    ) -> Result<(Self, Vec<String>), CredentialError> {
        let name = path_name(path);
        let failed = |what: String| CredentialError(format!("{name} {what}"));
        let opened = open_regular(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => failed("does not exist".to_owned()),
            _ => failed(format!("cannot be read: {error}")),
        })?;
        let (file, about) = opened.ok_or_else(|| failed("is not a regular file".to_owned()))?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > LONGEST {
            let longest = LONGEST / 1024;
            return Err(failed(format!("must be at most {longest} KiB")));
        }
        let file = Self::parse(&bytes, context).map_err(|CredentialError(why)| failed(why))?;
        Ok((file, permission_warnings(&name, &about)))
    }

    /// Parses the content of a file.
    ///
    /// # Errors
    ///
    /// Fails if the content is not a credential of a supported type. The text continues a sentence that begins with the
    /// file's name.
    pub fn parse(bytes: &[u8], context: &ReadContext<'_>) -> Result<Self, CredentialError> {
        if bytes.trim_ascii().is_empty() {
            return Err(CredentialError("is empty".to_owned()));
        }
        if bytes.starts_with("\u{feff}".as_bytes()) {
            let text = "begins with a byte order mark, which JSON does not allow: save it as UTF-8 without one";
            return Err(CredentialError(text.to_owned()));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            // The parser's own message may quote the content.
            let (line, column) = (error.line(), error.column());
            CredentialError(format!("is not JSON: line {line}, column {column}"))
        })?;
        let Value::Object(object) = value else {
            let text = "is not a credential: a JSON object is expected";
            return Err(CredentialError(text.to_owned()));
        };
        typed(&object, "", context).map_err(|error| match error {
            TypedError::Field(kind, error) => CredentialError(format!("({kind}): {error}")),
            TypedError::Type(text) => CredentialError(text),
        })
    }

    /// Returns the file's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AuthorizedUser(_) => AUTHORIZED_USER,
            Self::ExternalAccount(_) => EXTERNAL_ACCOUNT,
            Self::ExternalAccountAuthorizedUser(_) => EXTERNAL_ACCOUNT_AUTHORIZED_USER,
            Self::Impersonated(_) => IMPERSONATED,
            Self::ServiceAccount(_) => SERVICE_ACCOUNT,
        }
    }

    /// Returns the account that tokens are issued to, if the file names it.
    pub(crate) fn account(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(file) => file.email.as_deref(),
            Self::ExternalAccount(file) => file.impersonation.as_ref().map(|to| &*to.account),
            Self::ExternalAccountAuthorizedUser(_) => None,
            Self::Impersonated(file) => Some(&file.target),
            Self::ServiceAccount(file) => Some(&file.email),
        }
    }

    /// Returns whether the tokens belong to a service account, which can sign.
    pub(crate) fn is_of_account(&self) -> bool {
        match self {
            Self::AuthorizedUser(_) | Self::ExternalAccountAuthorizedUser(_) => false,
            Self::ExternalAccount(file) => file.impersonation.is_some(),
            Self::Impersonated(_) | Self::ServiceAccount(_) => true,
        }
    }

    /// Returns the project, if the file names it.
    pub(crate) fn project(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(_) | Self::ExternalAccountAuthorizedUser(_) => None,
            Self::Impersonated(file) => project_of(&file.target).or_else(|| file.source.project()),
            Self::ExternalAccount(file) => {
                let of_account = file.impersonation.as_ref();
                let of_account = of_account.and_then(|to| project_of(&to.account));
                let project = file.quota_project.as_ref().or(file.user_project.as_ref());
                of_account.or_else(|| project.map(|project| &**project))
            }
            Self::ServiceAccount(file) => file.project.as_deref(),
        }
    }

    /// Returns the project that is charged for calls and quota. The outermost file decides.
    pub(crate) fn quota_project(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(file) => file.quota_project.as_deref(),
            Self::ExternalAccount(file) => file.quota_project.as_deref(),
            Self::ExternalAccountAuthorizedUser(file) => file.quota_project.as_deref(),
            Self::Impersonated(file) => file.quota_project.as_deref(),
            Self::ServiceAccount(file) => file.quota_project.as_deref(),
        }
    }

    /// Returns the universe domain.
    pub fn universe(&self) -> &str {
        match self {
            Self::AuthorizedUser(_) => crate::policy::DEFAULT_UNIVERSE,
            Self::ExternalAccount(file) => &file.universe,
            Self::ExternalAccountAuthorizedUser(file) => &file.universe,
            Self::Impersonated(file) => &file.universe,
            Self::ServiceAccount(file) => &file.universe,
        }
    }
}

/// An error of an object that is not a credential.
enum TypedError {
    /// A field of a credential of this type is wrong.
    Field(&'static str, FieldError),
    /// The type is missing or not supported.
    Type(String),
}

/// Reads an object according to its `type`.
fn typed(
    object: &Map<String, Value>,
    prefix: &str,
    context: &ReadContext<'_>,
) -> Result<CredentialFile, TypedError> {
    let fields = Fields::new(object, prefix);
    let not_a_type =
        |what: &str| TypedError::Type(format!("is not a credential: {prefix}type {what}"));
    let kind = match object.get("type") {
        Some(Value::String(kind)) => &**kind,
        Some(_) => return Err(not_a_type("must be a text")),
        None if object.contains_key("installed") || object.contains_key("web") => {
            return Err(TypedError::Type(
                "is the file of an OAuth client, not a credential: run `gcloud auth application-default login`".to_owned(),
            ));
        }
        None => {
            return Err(not_a_type(&format!(
                "is missing: one of {SUPPORTED} is expected"
            )));
        }
    };
    match kind {
        SERVICE_ACCOUNT => ServiceAccount::read(fields, context)
            .map(CredentialFile::ServiceAccount)
            .map_err(|error| TypedError::Field(SERVICE_ACCOUNT, error)),
        AUTHORIZED_USER => AuthorizedUser::read(fields, context)
            .map(CredentialFile::AuthorizedUser)
            .map_err(|error| TypedError::Field(AUTHORIZED_USER, error)),
        IMPERSONATED => ImpersonatedServiceAccount::read(fields, context)
            .map(CredentialFile::Impersonated)
            .map_err(|error| TypedError::Field(IMPERSONATED, error)),
        EXTERNAL_ACCOUNT if is_x509(object) => Err(not_a_type(
            "external_account with an X.509 certificate (credential_source.certificate) is not supported yet",
        )),
        EXTERNAL_ACCOUNT => ExternalAccount::read(fields, context)
            .map(|file| CredentialFile::ExternalAccount(Box::new(file)))
            .map_err(|error| TypedError::Field(EXTERNAL_ACCOUNT, error)),
        EXTERNAL_ACCOUNT_AUTHORIZED_USER => ExternalAccountAuthorizedUser::read(fields, context)
            .map(CredentialFile::ExternalAccountAuthorizedUser)
            .map_err(|error| TypedError::Field(EXTERNAL_ACCOUNT_AUTHORIZED_USER, error)),
        kind => Err(not_a_type(&format!(
            "{} is not supported: one of {SUPPORTED} is expected",
            shown(kind)
        ))),
    }
}

/// Reads the source credential of an `impersonated_service_account`. It cannot be of that type itself, because
/// `delegates` describes a chain.
pub(super) fn nested(
    object: &Map<String, Value>,
    name: &str,
    context: &ReadContext<'_>,
) -> Result<CredentialFile, FieldError> {
    const TYPES: ExpectedValue = ExpectedValue::Other(
        "one of service_account, authorized_user, external_account, external_account_authorized_user",
    );
    let prefix = format!("{name}.");
    let fields = Fields::new(object, &prefix);
    if fields.text("type")? == IMPERSONATED {
        return Err(fields.wrong("type", TYPES));
    }
    typed(object, &prefix, context).map_err(|error| match error {
        TypedError::Field(_, error) => error,
        TypedError::Type(_) => fields.wrong("type", TYPES),
    })
}

/// Returns whether the file uses federation by a client certificate.
fn is_x509(object: &Map<String, Value>) -> bool {
    object
        .get("credential_source")
        .is_some_and(|source| source.get("certificate").is_some())
}

/// Returns a type for a message, if it is short, visible, and does not look like a credential.
fn shown(kind: &str) -> String {
    if kind.len() <= 64 && is_visible(kind) && hidden(kind).is_none() {
        format!("{kind:?}")
    } else {
        "in the file".to_owned()
    }
}

/// The permissions of a credential file.
#[derive(Clone, Copy)]
struct FilePermissions {
    /// The permission bits.
    mode: u32,
    /// The user id of the owner.
    owner: u32,
    /// The user id of this process.
    user: u32,
}

/// Returns warnings if other users can read or change the file.
#[cfg(unix)]
fn permission_warnings(name: &str, about: &fs::Metadata) -> Vec<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let permissions = FilePermissions {
        mode: about.permissions().mode() & 0o7777,
        owner: about.uid(),
        user: rustix::process::geteuid().as_raw(),
    };
    permissions.warnings(name)
}

// === impl FilePermissions ===

impl FilePermissions {
    fn warnings(self, name: &str) -> Vec<String> {
        [self.of_others(name), self.of_owner(name)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Returns a warning if the mode lets users other than the owner read or change the file.
    ///
    /// A file of root is probably on a volume of Kubernetes, and the pod's group (`fsGroup`) may read it.
    fn of_others(self, name: &str) -> Option<String> {
        const EVERYONE: &str = "every user of this machine";
        const GROUP: &str = "every user of its group";
        let Self { mode, owner, user } = self;
        let whom = |of_others: u32, of_group: u32| {
            let by_group = (mode & of_group != 0).then_some(GROUP);
            (mode & of_others != 0).then_some(EVERYONE).or(by_group)
        };
        let group_read = if owner == user { 0o040 } else { 0 };
        let what = match (whom(0o004, group_read), whom(0o002, 0o020)) {
            (None, None) => return None,
            (Some(reader), None) => format!("read by {reader}"),
            (None, Some(writer)) => format!("changed by {writer}"),
            (Some(reader), Some(writer)) if reader == writer => {
                format!("read and changed by {reader}")
            }
            (Some(reader), Some(writer)) => format!("read by {reader} and changed by {writer}"),
        };
        let remedy = match owner == user {
            true => "chmod 600",
            false => "chmod g-w,o-rwx",
        };
        Some(format!(
            "{name} can be {what} (mode {mode:04o}): run {remedy} on it"
        ))
    }

    /// Returns a warning if the file belongs to a user who could change it.
    fn of_owner(self, name: &str) -> Option<String> {
        let Self { owner, user, .. } = self;
        (owner != user && owner != 0).then(|| {
            format!(
                "{name} can be changed by its owner, the user id {owner}, and this process has the user id {user}: run \
                 chown {user} on it"
            )
        })
    }
}

#[cfg(test)]
mod tests;
