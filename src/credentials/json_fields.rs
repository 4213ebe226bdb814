//! Reads the fields of a credential file. Errors name the field and the expected value, never the actual one.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::context::ReadContext;
use super::{EndpointUrl, InvalidKey};
use crate::destination::Host;

/// The fields of one JSON object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// The prefix of field names in messages, such as `source_credentials.`.
    prefix: &'a str,
}

/// A field with an unexpected value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) missing: bool,
    pub(super) expected: ExpectedValue,
}

/// The expected value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpectedValue {
    /// A description of the expected value.
    Other(&'static str),
    Domain,
    Email,
    Key(InvalidKey),
    Number(RangeInclusive<u64>),
    Object,
    Text,
    Texts,
    Url,
    /// A URL of a token service under this domain.
    UrlUnder(String),
}

pub(super) const VISIBLE: ExpectedValue =
    ExpectedValue::Other("a text of visible ASCII characters");
const VISIBLE_TEXTS: ExpectedValue =
    ExpectedValue::Other("a list of texts of visible ASCII characters");

/// Returns whether the text has visible ASCII characters only.
pub(super) fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { object, prefix }
    }

    /// Returns a required text of visible ASCII that is not empty. Texts are shown in messages and sent in requests.
    pub(super) fn text(self, name: &str) -> Result<&'a str, FieldError> {
        self.visible_text(name)?
            .ok_or_else(|| self.missing(name, ExpectedValue::Text))
    }

    /// Returns the required path of a file.
    pub(super) fn path(self, name: &str) -> Result<&'a str, FieldError> {
        self.optional_path(name)?
            .ok_or_else(|| self.missing(name, ExpectedValue::Text))
    }

    /// Returns the path of a file. Messages quote it, so it may have any printable character.
    pub(super) fn optional_path(self, name: &str) -> Result<Option<&'a str>, FieldError> {
        const PRINTABLE: ExpectedValue =
            ExpectedValue::Other("the path of a file, without control characters,");
        let text = self.optional_text(name)?;
        match text.is_some_and(|text| text.contains(char::is_control)) {
            true => Err(self.wrong(name, PRINTABLE)),
            false => Ok(text),
        }
    }

    /// Returns a required command line of ASCII, without control characters.
    pub(super) fn command_line(self, name: &str) -> Result<&'a str, FieldError> {
        const PRINTABLE: ExpectedValue =
            ExpectedValue::Other("a command line of ASCII, without control characters,");
        let text = self.optional_text(name)?;
        let text = text.ok_or_else(|| self.missing(name, ExpectedValue::Text))?;
        let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        match text.bytes().all(is_printable) {
            true => Ok(text),
            false => Err(self.wrong(name, PRINTABLE)),
        }
    }

    /// Returns an optional text of any characters. `None` if it is missing, `null` or empty. The caller validates it.
    pub(super) fn optional_text(self, name: &str) -> Result<Option<&'a str>, FieldError> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(&**text).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(name, ExpectedValue::Text)),
        }
    }

    /// Returns a required e-mail address.
    pub(super) fn email(self, name: &str) -> Result<&'a str, FieldError> {
        let text = self.text(name)?;
        is_email(text)
            .then_some(text)
            .ok_or_else(|| self.wrong(name, ExpectedValue::Email))
    }

    /// Returns an optional text of visible ASCII.
    pub(super) fn visible_text(self, name: &str) -> Result<Option<&'a str>, FieldError> {
        let text = self.optional_text(name)?;
        if text.is_none_or(is_visible) {
            Ok(text)
        } else {
            Err(self.wrong(name, VISIBLE))
        }
    }

    /// Returns a project's id or number. Ids of older projects begin with a domain, those of other universes with a
    /// prefix.
    pub(super) fn project(self, name: &str) -> Result<Option<&'a str>, FieldError> {
        let text = self.optional_text(name)?;
        let is_project = |text: &str| {
            let is_part = |byte: u8| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'-' | b'.' | b':')
            };
            text.len() <= 128 && text.bytes().all(is_part)
        };
        match text.is_none_or(is_project) {
            true => Ok(text),
            false => Err(self.wrong(name, ExpectedValue::Other("the id of a project"))),
        }
    }

    /// Returns a list of texts of visible ASCII. It is empty if the field is missing.
    pub(super) fn texts(self, name: &str) -> Result<Vec<String>, FieldError> {
        let list = match self.object.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(name, ExpectedValue::Texts)),
        };
        list.iter()
            .map(|item| match item {
                Value::String(text) if !is_visible(text) => Err(self.wrong(name, VISIBLE_TEXTS)),
                Value::String(text) if !text.is_empty() => Ok(text.clone()),
                _ => Err(self.wrong(name, ExpectedValue::Texts)),
            })
            .collect()
    }

    /// Returns a required object.
    pub(super) fn object(self, name: &str) -> Result<&'a Map<String, Value>, FieldError> {
        match self.object.get(name) {
            None | Some(Value::Null) => Err(self.missing(name, ExpectedValue::Object)),
            Some(Value::Object(object)) => Ok(object),
            Some(_) => Err(self.wrong(name, ExpectedValue::Object)),
        }
    }

    /// Returns a whole number in this range. `None` if it is missing.
    pub(super) fn number(
        self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FieldError> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, ExpectedValue::Number(range))),
            },
        }
    }

    /// Returns the path of a field, followed by a dot.
    pub(super) fn prefix_of(self, name: &str) -> String {
        format!("{}{name}.", self.prefix)
    }

    /// Returns whether the field exists.
    pub(super) fn has(self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Returns the URL of an endpoint. `None` if it is missing.
    pub(super) fn endpoint(
        self,
        name: &str,
        universe: &str,
        context: &ReadContext<'_>,
    ) -> Result<Option<EndpointUrl>, FieldError> {
        let Some(text) = self.optional_text(name)? else {
            return Ok(None);
        };
        EndpointUrl::parse(text, universe, context.trusted)
            .map(Some)
            .map_err(|expected| self.wrong(name, expected))
    }

    /// Returns `universe_domain`, or the universe of the environment, in lower case.
    pub(super) fn universe(self, context: &ReadContext<'_>) -> Result<String, FieldError> {
        const NAME: &str = "universe_domain";
        match self.optional_text(NAME)? {
            None => Ok(context.universe.to_owned()),
            // A single label would be a whole top-level domain.
            Some(text) => match Host::parse(text) {
                Ok(Host::Name(name)) if name.contains('.') => Ok(name.to_string()),
                _ => Err(self.wrong(NAME, ExpectedValue::Domain)),
            },
        }
    }

    pub(super) fn missing(self, name: &str, expected: ExpectedValue) -> FieldError {
        FieldError {
            missing: true,
            ..self.wrong(name, expected)
        }
    }

    pub(super) fn wrong(self, name: &str, expected: ExpectedValue) -> FieldError {
        FieldError {
            field: format!("{}{name}", self.prefix),
            missing: false,
            expected,
        }
    }
}

// === impl FieldError ===

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            missing,
            expected,
        } = self;
        if *missing {
            write!(f, "{field} is missing: {expected}")
        } else {
            write!(f, "{field}: {expected}")
        }
    }
}

// === impl ExpectedValue ===

impl fmt::Display for ExpectedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(what) => write!(f, "{what} is expected"),
            Self::Domain => f.write_str("a domain such as googleapis.com is expected"),
            Self::Email => f.write_str("an e-mail address is expected"),
            Self::Key(key) => key.fmt(f),
            Self::Number(range) => {
                let (least, most) = (range.start(), range.end());
                write!(f, "a whole number from {least} to {most} is expected")
            }
            Self::Object => f.write_str("a JSON object is expected"),
            Self::Text => f.write_str("a text is expected"),
            Self::Texts => f.write_str("a list of texts is expected"),
            Self::Url => {
                f.write_str("an https URL is expected, without user, fragment or dot segments")
            }
            Self::UrlUnder(domain) => write!(
                f,
                "an https URL of a host under {domain} is expected that serves OAuth, STS or IAM Credentials, such as \
                 sts.{domain}; if you trust the URL in the file, give it to --trust-credential-url"
            ),
        }
    }
}

/// Returns whether the text is an e-mail address as Google writes it. It is used in URLs and messages.
pub(super) fn is_email(text: &str) -> bool {
    let harmless = text.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'-' | b'+')
    });
    let parts = text.split_once('@');
    harmless
        && text.len() <= 254
        && parts.is_some_and(|(user, domain)| {
            !user.is_empty() && !domain.contains('@') && !domain.is_empty()
        })
}
