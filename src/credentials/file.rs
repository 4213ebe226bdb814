//! Reads a credential file and finds its type.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::context::ReadContext;
use super::fields::{Expected, FieldError, Fields};
use super::{
    AuthorizedUser, ExternalAccount, ExternalAccountAuthorizedUser, ImpersonatedServiceAccount,
    ServiceAccount,
};
use crate::policy::project_of;

/// A credential file, by its `type`.
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

/// Why a file cannot be used: its path, its type where it has one, the field, and what is expected. Never its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);

/// A credential file has some 3 KiB.
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
    /// Reads a file. The warnings are about the file itself, such as that others can read it.
    ///
    /// # Errors
    ///
    /// It does not exist, cannot be read, or is not a credential of a supported type.
    pub fn read(
        path: &Path,
        context: &ReadContext<'_>,
    ) -> Result<(Self, Vec<String>), CredentialError> {
        let name = format!("{:?}", path.display().to_string());
        let failed = |what: String| CredentialError(format!("{name} {what}"));
        let about = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => failed("does not exist".to_owned()),
            _ => failed(format!("cannot be read: {error}")),
        })?;
        if !about.is_file() {
            return Err(failed("is not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > LONGEST {
            let longest = LONGEST / 1024;
            return Err(failed(format!("must be at most {longest} KiB")));
        }
        let file = Self::parse(&bytes, context).map_err(|CredentialError(why)| failed(why))?;
        Ok((
            file,
            readable_by_others(&name, &about).into_iter().collect(),
        ))
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    ///
    /// It is not a credential of a supported type. The text continues a sentence that begins with the file's name.
    pub fn parse(bytes: &[u8], context: &ReadContext<'_>) -> Result<Self, CredentialError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            // The parser's own text may quote what it met.
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

    /// The file's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AuthorizedUser(_) => AUTHORIZED_USER,
            Self::ExternalAccount(_) => EXTERNAL_ACCOUNT,
            Self::ExternalAccountAuthorizedUser(_) => EXTERNAL_ACCOUNT_AUTHORIZED_USER,
            Self::Impersonated(_) => IMPERSONATED,
            Self::ServiceAccount(_) => SERVICE_ACCOUNT,
        }
    }

    /// The account that tokens are issued to, where the file says it.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(file) => file.email.as_deref(),
            Self::ExternalAccount(file) => file.impersonation.as_ref().map(|to| &*to.account),
            Self::ExternalAccountAuthorizedUser(_) => None,
            Self::Impersonated(file) => Some(&file.target),
            Self::ServiceAccount(file) => Some(&file.email),
        }
    }

    /// Whether its tokens are those of a service account, which can sign.
    pub fn is_of_account(&self) -> bool {
        match self {
            Self::AuthorizedUser(_) | Self::ExternalAccountAuthorizedUser(_) => false,
            Self::ExternalAccount(file) => file.impersonation.is_some(),
            Self::Impersonated(_) | Self::ServiceAccount(_) => true,
        }
    }

    /// The project, where the file says it.
    pub fn project(&self) -> Option<&str> {
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

    /// The project that pays for calls and whose quota counts. Of nested files it is the outer one's.
    pub fn quota_project(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(file) => file.quota_project.as_deref(),
            Self::ExternalAccount(file) => file.quota_project.as_deref(),
            Self::ExternalAccountAuthorizedUser(file) => file.quota_project.as_deref(),
            Self::Impersonated(file) => file.quota_project.as_deref(),
            Self::ServiceAccount(file) => file.quota_project.as_deref(),
        }
    }

    /// The universe domain.
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

/// An object that is no credential.
enum TypedError {
    /// A field of a credential of this type.
    Field(&'static str, FieldError),
    /// The type itself.
    Type(String),
}

/// Reads an object by its `type`.
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

/// Reads the credential inside an `impersonated_service_account`. It is not of that type itself: such a chain is written
/// with `delegates`.
pub(super) fn nested(
    object: &Map<String, Value>,
    name: &str,
    context: &ReadContext<'_>,
) -> Result<CredentialFile, FieldError> {
    const TYPES: Expected = Expected::Other(
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

/// Federation by a client certificate.
fn is_x509(object: &Map<String, Value>) -> bool {
    object
        .get("credential_source")
        .is_some_and(|source| source.get("certificate").is_some())
}

/// A type as it may be shown: an identifier, and nothing that could be a secret.
fn shown(kind: &str) -> String {
    let is_identifier = kind.len() <= 64
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
    if is_identifier {
        format!("{kind:?}")
    } else {
        "in the file".to_owned()
    }
}

/// A warning where the permissions let others than the owner read the file.
///
/// A file of another owner is taken for one of a volume of Kubernetes, which belongs to root and is readable by the group of
/// the pod (`fsGroup`).
#[cfg(unix)]
fn readable_by_others(name: &str, about: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mode = about.permissions().mode() & 0o7777;
    let is_own = about.uid() == rustix::process::geteuid().as_raw();
    let whom = if mode & 0o004 != 0 {
        "every user of this machine"
    } else if mode & 0o040 != 0 && is_own {
        "every user of its group"
    } else {
        return None;
    };
    Some(format!(
        "{name} can be read by {whom} (mode {mode:04o}): run chmod 600 on it"
    ))
}

#[cfg(test)]
mod tests;
