//! `credential_source`: the source of the subject token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::aws::AwsSource;
use super::command_line;
use super::url::{SourceUrl, UrlRule};
use crate::credentials::ReadContext;
use crate::credentials::json_fields::{ExpectedValue, FieldError, Fields};

/// The range of `timeout_millis` of an executable.
const TIMEOUT: std::ops::RangeInclusive<u64> = 5_000..=120_000;
const DEFAULT_TIMEOUT: u64 = 30_000;

/// The variable with which the user permits executables, as in Google's libraries.
const ALLOW: &str = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES";

/// The source of the subject token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// A signed request of AWS.
    Aws(AwsSource),
    /// A program.
    Executable(ExecutableSource),
    /// A file.
    File(FileSource),
    /// A URL.
    Url(UrlSource),
}

/// A file with the token. Another program may replace it at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSource {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The format of the file.
    pub(crate) format: TokenFormat,
}

/// A URL that returns the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UrlSource {
    /// Where it is.
    pub(crate) url: SourceUrl,
    /// The headers of the request. They may be secret.
    pub(crate) headers: HeaderMap,
    /// The format of the response.
    pub(crate) format: TokenFormat,
}

/// A program that prints the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ExecutableSource {
    /// The program, followed by its arguments.
    command: Vec<String>,
    /// The time after which the program is killed.
    pub(crate) timeout: Duration,
    /// The file in which the program caches its last response.
    pub(crate) output_file: Option<PathBuf>,
    /// The variables to set or to remove, in addition to those of this process.
    pub(crate) environment: Vec<(&'static str, Option<String>)>,
}

/// The format of a token in a file or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenFormat {
    /// A field of a JSON object.
    Json {
        /// `subject_token_field_name`.
        field: Box<str>,
    },
    /// The whole text.
    Text,
}

/// The facts of the file that are passed to a program.
pub(super) struct Known<'a> {
    pub(super) audience: &'a str,
    pub(super) subject_token_type: &'a str,
    pub(super) account: Option<&'a str>,
}

// === impl CredentialSource ===

impl CredentialSource {
    /// Reads the `credential_source` of these fields.
    pub(super) fn read(
        fields: Fields<'_>,
        known: &Known<'_>,
        context: &ReadContext<'_>,
    ) -> Result<Self, FieldError> {
        const NAME: &str = "credential_source";
        const KINDS: [&str; 4] = ["environment_id", "executable", "file", "url"];
        let prefix = fields.prefix_of(NAME);
        let source = Fields::new(fields.object(NAME)?, &prefix);
        let mut given = KINDS.iter().filter(|kind| source.has(kind));
        let (kind, another) = (given.next(), given.next());
        // Only AWS has a URL beside other fields.
        let is_clear = match (kind, another) {
            (Some(&"environment_id"), Some(another)) => *another == "url" && given.next().is_none(),
            (Some(_), None) => true,
            _ => false,
        };
        // Without it, a file for AWS would be read as a file for a URL that returns a token.
        const OF_AWS: [&str; 3] = [
            "imdsv2_session_token_url",
            "region_url",
            "regional_cred_verification_url",
        ];
        if !source.has("environment_id") && OF_AWS.iter().any(|name| source.has(name)) {
            let expected = "aws1, because there are other fields of AWS,";
            return Err(source.missing("environment_id", ExpectedValue::Other(expected)));
        }
        let Some(kind) = kind.filter(|_| is_clear) else {
            let expected = "exactly one of file, url, executable and environment_id (AWS)";
            return Err(fields.wrong(NAME, ExpectedValue::Other(expected)));
        };
        match *kind {
            "environment_id" => AwsSource::read(source, context).map(Self::Aws),
            "executable" => {
                let prefix = source.prefix_of(kind);
                let executable = Fields::new(source.object(kind)?, &prefix);
                ExecutableSource::read(executable, known, context).map(Self::Executable)
            }
            "file" => Ok(Self::File(FileSource {
                path: source.path(kind)?.into(),
                format: TokenFormat::read(source)?,
            })),
            _ => Ok(Self::Url(UrlSource {
                url: url(source, kind, UrlRule::SubjectToken, context)?
                    .ok_or_else(|| source.missing(kind, ExpectedValue::Url))?,
                headers: headers(source)?,
                format: TokenFormat::read(source)?,
            })),
        }
    }

    /// Returns the file that is read for each token.
    pub(in crate::credentials) fn file(&self) -> Option<&Path> {
        match self {
            Self::Aws(source) => source.keys.file(),
            Self::Executable(source) => source.output_file.as_deref(),
            Self::File(source) => Some(&source.path),
            Self::Url(_) => None,
        }
    }
}

/// Reads a URL. It must satisfy the rule unless the user trusts it. Returns `None` if it is missing.
pub(super) fn url(
    fields: Fields<'_>,
    name: &str,
    rule: UrlRule,
    context: &ReadContext<'_>,
) -> Result<Option<SourceUrl>, FieldError> {
    let Some(text) = fields.optional_text(name)? else {
        return Ok(None);
    };
    SourceUrl::parse(text, rule, context.trusted)
        .map(Some)
        .map_err(|expected| fields.wrong(name, ExpectedValue::Other(expected)))
}

fn headers(fields: Fields<'_>) -> Result<HeaderMap, FieldError> {
    const NAME: &str = "headers";
    let mut headers = HeaderMap::new();
    if !fields.has(NAME) {
        return Ok(headers);
    }
    for (name, value) in fields.object(NAME)? {
        let name = HeaderName::try_from(name);
        let value = value.as_str().map(HeaderValue::try_from);
        let (Some(name), Some(Ok(mut value))) = (name.ok().filter(is_of_message), value) else {
            let expected = "an object of header names and their texts, without Host and headers that frame the message";
            return Err(fields.wrong(NAME, ExpectedValue::Other(expected)));
        };
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Returns whether a file may set this header. The client itself sets those of the connection and the body.
fn is_of_message(name: &HeaderName) -> bool {
    const OWN: [&str; 11] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    !OWN.contains(&name.as_str())
}

// === impl TokenFormat ===

impl TokenFormat {
    fn read(fields: Fields<'_>) -> Result<Self, FieldError> {
        const NAME: &str = "format";
        const TYPE: &str = "type";
        if !fields.has(NAME) {
            return Ok(Self::Text);
        }
        let prefix = fields.prefix_of(NAME);
        let format = Fields::new(fields.object(NAME)?, &prefix);
        match format.optional_text(TYPE)? {
            None | Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json {
                field: format.text("subject_token_field_name")?.into(),
            }),
            Some(_) => Err(format.wrong(TYPE, ExpectedValue::Other("text or json"))),
        }
    }
}

// === impl UrlSource ===

/// Omits the values of headers, which are marked sensitive.
impl fmt::Debug for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSource")
            .field("url", &self.url)
            .field("headers", &self.headers)
            .field("format", &self.format)
            .finish()
    }
}

// === impl ExecutableSource ===

impl ExecutableSource {
    fn read(
        fields: Fields<'_>,
        known: &Known<'_>,
        context: &ReadContext<'_>,
    ) -> Result<Self, FieldError> {
        const COMMAND: &str = "command";
        let line = fields.command_line(COMMAND)?;
        let command = command_line::split(line).map_err(|_| {
            let expected = "a command line whose quotation marks are closed";
            fields.wrong(COMMAND, ExpectedValue::Other(expected))
        })?;
        let is_program = command.first().is_some_and(|program| !program.is_empty());
        if !is_program {
            let expected = "a command line that begins with a program";
            return Err(fields.wrong(COMMAND, ExpectedValue::Other(expected)));
        }
        if (context.variable)(ALLOW).as_deref() != Some("1") {
            let expected = "the environment variable GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1, which allows to run it,";
            return Err(fields.wrong(COMMAND, ExpectedValue::Other(expected)));
        }
        let timeout = fields.number("timeout_millis", TIMEOUT)?;
        let output_file = fields.optional_path("output_file")?;
        let set = |text: &str| Some(text.to_owned());
        Ok(Self {
            command,
            timeout: Duration::from_millis(timeout.unwrap_or(DEFAULT_TIMEOUT)),
            output_file: output_file.map(PathBuf::from),
            environment: vec![
                ("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", set(known.audience)),
                (
                    "GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE",
                    set(known.subject_token_type),
                ),
                ("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", set("0")),
                ("GOOGLE_EXTERNAL_ACCOUNT_REVOKE", set("0")),
                (
                    "GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL",
                    known.account.and_then(set),
                ),
                (
                    "GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE",
                    output_file.and_then(set),
                ),
            ],
        })
    }

    /// Returns the path or the name of the program.
    pub(crate) fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Returns the arguments of the program.
    pub(crate) fn arguments(&self) -> &[String] {
        self.command.get(1..).unwrap_or_default()
    }
}

/// Omits the arguments, which may be secret.
impl fmt::Debug for ExecutableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutableSource")
            .field("program", &self.program())
            .field("timeout", &self.timeout)
            .field("output_file", &self.output_file)
            .finish_non_exhaustive()
    }
}
