//! `credential_source` of AWS: the sources of the keys and the region. The variables are those of the AWS SDKs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::subject::url;
use super::url::{SourceUrl, UrlRule};
use crate::credentials::ReadContext;
use crate::credentials::json_fields::{self, ExpectedValue, FieldError, Fields};
use crate::destination::{Destination, Scheme};

/// The domains of AWS partitions.
const DOMAINS: [&str; 6] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "api.amazonwebservices.eu",
];
/// The host of an ECS task's credentials endpoint.
const CONTAINER_HOST: &str = "http://169.254.170.2";

/// The AWS identity of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsSource {
    /// `regional_cred_verification_url`, with `{region}` as the placeholder of the region.
    pub(crate) verification_url: Arc<str>,
    /// `region_url`, which returns the availability zone.
    pub(crate) region_url: Option<SourceUrl>,
    /// `imdsv2_session_token_url`.
    pub(crate) session_token_url: Option<SourceUrl>,
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub(crate) region: Option<String>,
    /// The source of the keys.
    pub(crate) keys: AwsKeySource,
}

/// The sources of the keys, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AwsKeySource {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment(AwsEnvironment),
    /// `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`: a Kubernetes service account on EKS.
    WebIdentity(AwsWebIdentity),
    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI`: ECS, Fargate, EKS Pod Identity.
    Container(AwsContainer),
    /// `url` of the file: the instance metadata service of EC2.
    Instance(SourceUrl),
}

/// Keys in the environment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AwsEnvironment {
    /// `AWS_ACCESS_KEY_ID`.
    pub(crate) access_key_id: Arc<str>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub(crate) secret_access_key: Arc<str>,
    /// `AWS_SESSION_TOKEN`.
    pub(crate) session_token: Option<Arc<str>>,
}

/// A role, and the token with which it is assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsWebIdentity {
    /// `AWS_ROLE_ARN`.
    pub(crate) role: String,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub(crate) token_file: PathBuf,
    /// `AWS_ROLE_SESSION_NAME`, else `sidentity`.
    pub(crate) session_name: String,
}

/// The container credentials endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsContainer {
    /// Where it is.
    pub(crate) url: SourceUrl,
    /// The value of `Authorization`, if one is required.
    pub(crate) token: Option<ContainerToken>,
}

/// An authorization token for the container credentials endpoint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ContainerToken {
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`. The file is rotated.
    File(PathBuf),
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    Text(Arc<str>),
}

// === impl AwsSource ===

impl AwsSource {
    pub(super) fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const ID: &str = "environment_id";
        const VERIFICATION: &str = "regional_cred_verification_url";
        const REGION: &str = "region_url";
        if fields.text(ID)? != "aws1" {
            return Err(fields.wrong(ID, ExpectedValue::Other("aws1, the only version,")));
        }
        let verification_url = fields.text(VERIFICATION)?;
        if !is_caller_identity(verification_url, context) {
            let expected = "the URL https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";
            return Err(fields.wrong(VERIFICATION, ExpectedValue::Other(expected)));
        }
        let region_url = url(fields, REGION, UrlRule::AwsInstance, context)?;
        let variable = context.variable;
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let is_region = |region: &String| {
            let is_plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            region.len() <= 64 && region.bytes().all(is_plain)
        };
        if !region.as_ref().is_none_or(is_region) {
            let expected = "a region such as us-east-2 in the environment variable AWS_REGION or AWS_DEFAULT_REGION";
            return Err(fields.wrong(REGION, ExpectedValue::Other(expected)));
        }
        if region.is_none() && region_url.is_none() {
            let expected = "a URL, or the region in the environment variable AWS_REGION,";
            return Err(fields.missing(REGION, ExpectedValue::Other(expected)));
        }
        Ok(Self {
            verification_url: verification_url.into(),
            region_url,
            session_token_url: url(
                fields,
                "imdsv2_session_token_url",
                UrlRule::AwsInstance,
                context,
            )?,
            region,
            keys: AwsKeySource::read(fields, context)?,
        })
    }
}

/// Returns whether a URL is a `GetCallerIdentity` request to AWS STS. Other signed requests must not leave the process.
fn is_caller_identity(template: &str, context: &ReadContext<'_>) -> bool {
    let Ok(url) = Destination::parse(&template.replace("{region}", "us-east-2")) else {
        return false;
    };
    let host = &url.origin.host;
    let service = host.name().and_then(|name| name.split('.').next());
    let is_aws = url.origin.scheme == Scheme::Https
        && url.origin.is_default_port()
        && matches!(service, Some("sts" | "sts-fips"))
        && DOMAINS.iter().any(|domain| host.is_under(domain));
    let mut parameters = url.query().unwrap_or_default().split('&');
    let is_action = parameters
        .clone()
        .filter(|parameter| parameter.starts_with("Action="))
        .eq(["Action=GetCallerIdentity"]);
    let is_trusted = context.trusted.iter().any(|prefix| prefix.covers(&url));
    (is_aws || is_trusted)
        && is_action
        && parameters.any(|parameter| parameter == "Version=2011-06-15")
        && matches!(url.path(), "" | "/")
        && !url.userinfo
        && !template.contains('#')
}

// === impl AwsKeySource ===

impl AwsKeySource {
    fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Self, FieldError> {
        const URL: &str = "url";
        let variable = context.variable;
        if let (Some(id), Some(secret)) = (
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
        ) {
            let keys = AwsEnvironment {
                access_key_id: id.into(),
                secret_access_key: secret.into(),
                session_token: variable("AWS_SESSION_TOKEN").map(Arc::from),
            };
            if let Some(expected) = keys.malformed() {
                return Err(fields.wrong(URL, ExpectedValue::Other(expected)));
            }
            return Ok(Self::Environment(keys));
        }
        if let (Some(file), Some(role)) = (
            variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
            variable("AWS_ROLE_ARN"),
        ) {
            return Ok(Self::WebIdentity(AwsWebIdentity {
                role,
                token_file: file.into(),
                session_name: variable("AWS_ROLE_SESSION_NAME")
                    .unwrap_or_else(|| "sidentity".to_owned()),
            }));
        }
        if let Some(container) = AwsContainer::read(fields, context)? {
            return Ok(Self::Container(container));
        }
        let expected = "a URL of the AWS metadata service, or the credentials that AWS puts into the environment,";
        url(fields, URL, UrlRule::AwsInstance, context)?
            .map(Self::Instance)
            .ok_or_else(|| fields.missing(URL, ExpectedValue::Other(expected)))
    }

    /// Returns the file that is read for the keys.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Container(AwsContainer {
                token: Some(ContainerToken::File(path)),
                ..
            }) => Some(path),
            Self::WebIdentity(identity) => Some(&identity.token_file),
            Self::Container(_) | Self::Environment(_) | Self::Instance(_) => None,
        }
    }
}

// === impl AwsContainer ===

impl AwsContainer {
    fn read(fields: Fields<'_>, context: &ReadContext<'_>) -> Result<Option<Self>, FieldError> {
        let variable = context.variable;
        let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let Some(text) = relative
            .map(|path| format!("{CONTAINER_HOST}{path}"))
            .or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        else {
            return Ok(None);
        };
        let url = SourceUrl::parse(&text, UrlRule::AwsContainer, context.trusted).map_err(|_| {
            let expected = "in AWS_CONTAINER_CREDENTIALS_RELATIVE_URI a path, or in AWS_CONTAINER_CREDENTIALS_FULL_URI a URL \
                            with https or with http on loopback, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]";
            fields.wrong("url", ExpectedValue::Other(expected))
        })?;
        let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let text = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        Ok(Some(Self {
            url,
            token: match (file, text) {
                (Some(file), _) => Some(ContainerToken::File(file.into())),
                (None, Some(text)) => Some(ContainerToken::Text(text.into())),
                (None, None) => None,
            },
        }))
    }
}

// === impl AwsEnvironment ===

impl AwsEnvironment {
    /// Returns what is expected of the first variable that holds no key, with its name.
    fn malformed(&self) -> Option<&'static str> {
        let token = self.session_token.as_deref();
        if !is_access_key_id(&self.access_key_id) {
            Some(
                "an access key id of at most 128 letters, digits and underscores in the environment variable AWS_ACCESS_KEY_ID",
            )
        } else if !is_secret_access_key(&self.secret_access_key) {
            Some(
                "a secret key of at most 256 characters without spaces in the environment variable AWS_SECRET_ACCESS_KEY",
            )
        } else if !token.is_none_or(is_session_token) {
            Some(
                "a session token of at most 16384 characters without spaces in the environment variable AWS_SESSION_TOKEN",
            )
        } else {
            None
        }
    }
}

/// Returns whether the text is the id of an access key (IAM API Reference, AccessKey). It is a part of a header.
pub(crate) fn is_access_key_id(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(is_word)
}

/// Returns whether the text can be a secret access key. AWS issues 40 characters.
pub(crate) fn is_secret_access_key(text: &str) -> bool {
    is_visible(text, 256)
}

/// Returns whether the text can be a session token. AWS names no limit, and issues some hundred characters.
pub(crate) fn is_session_token(text: &str) -> bool {
    is_visible(text, 16 * 1024)
}

fn is_visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && json_fields::is_visible(text)
}

/// Omits the keys.
impl fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsEnvironment").finish_non_exhaustive()
    }
}

/// Omits the token.
impl fmt::Debug for ContainerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.debug_tuple("Text").finish_non_exhaustive(),
        }
    }
}
