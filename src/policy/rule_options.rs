//! Parses the options of a route or rule, and checks them for contradictions.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;

use super::decision::Credential;
use super::impersonation::Impersonation;
use super::rule::{AuthScheme, Existing, HeaderMode, RuleOptions};
use crate::suggestion::nearest;

/// The error of a text that is not a valid value of its option. It names the valid values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

/// The longest audience. It is a URL or a client id, and must fit in a request line to the metadata server.
const MAX_AUDIENCE: usize = 2048;

// === impl RuleOptions ===

impl RuleOptions {
    /// Every option that [`Self::set`] knows.
    pub const NAMES: [&str; 13] = [
        "credential",
        "audience",
        "scope",
        "header",
        "existing",
        "account",
        "impersonate",
        "delegate",
        "subject",
        "token",
        "quota-project",
        "scheme",
        "plaintext",
    ];

    /// Sets one option from its text. `scope` and `delegate` are repeatable; each other option may be set once.
    ///
    /// # Errors
    ///
    /// The option or its value is invalid. The caller adds the position to the message.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "credential" => once(name, value, &mut self.credential, parse(value)?),
            "audience" => once(name, value, &mut self.audience, audience(value)?),
            "scope" => {
                self.scopes.push(scope(value)?);
                Ok(())
            }
            "header" => once(name, value, &mut self.header, parse(value)?),
            "existing" => once(name, value, &mut self.existing, parse(value)?),
            "account" => once(name, value, &mut self.account, account(value)?),
            "quota-project" => once(name, value, &mut self.quota_project, quota_project(value)?),
            "scheme" => once(name, value, &mut self.scheme, parse(value)?),
            "plaintext" if value == "allow" => {
                self.plaintext = true;
                Ok(())
            }
            "plaintext" => Err(format!(
                "plaintext {} must be allow; otherwise remove the option",
                quoted(value)
            )),
            "impersonate" => {
                let target = service_account(name, value)?;
                once(name, value, &mut self.impersonate, target)
            }
            "delegate" => {
                self.delegates.push(service_account(name, value)?);
                Ok(())
            }
            "subject" => once(name, value, &mut self.subject, subject(value)?),
            "token" if value == "jwt" => {
                self.jwt = true;
                Ok(())
            }
            "token" => Err(format!(
                "token {} must be jwt; remove the option for an ID token of Google",
                quoted(value)
            )),
            _ => Err(unknown(name)),
        }
    }

    /// Returns the credential that these options name: `credential=`, otherwise `id` if there is an `audience=` or
    /// `token=jwt`, or `access` if there is a `scope=`.
    pub(crate) fn effective_credential(&self) -> Option<Credential> {
        let id = self.audience.is_some() || self.jwt;
        self.credential
            .or_else(|| id.then_some(Credential::Id))
            .or_else(|| (!self.scopes.is_empty()).then_some(Credential::Access))
    }

    /// Returns the chain that `impersonate=` and `delegate=` name.
    pub(crate) fn impersonation(&self) -> Option<Impersonation> {
        let target = self.impersonate.as_deref()?;
        let delegates = self.delegates.iter().map(String::as_str);
        Some(Impersonation::new(delegates, target))
    }

    /// Checks for options that contradict each other.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_kind()?;
        self.validate_identity()
    }

    fn validate_kind(&self) -> Result<(), String> {
        let audience = self.audience.as_deref().map(quoted);
        let scope = self.scopes.first().map(|scope| quoted(scope));
        if let (Some(audience), Some(scope)) = (&audience, &scope) {
            return Err(format!(
                "audience {audience} is for ID tokens and scope {scope} for access tokens; remove one of them"
            ));
        }
        match (self.effective_credential(), audience, scope) {
            (Some(credential @ (Credential::None | Credential::Deny)), Some(audience), _) => {
                Err(format!(
                    "credential={credential} does not accept the audience {audience}; write credential=id, or remove the audience"
                ))
            }
            (Some(credential @ (Credential::None | Credential::Deny)), _, Some(scope)) => {
                Err(format!(
                    "credential={credential} does not accept the scope {scope}; write credential=access, or remove the scope"
                ))
            }
            (Some(Credential::Access), Some(audience), _) => Err(format!(
                "an access token has no audience {audience}; write credential=id, or scope= instead"
            )),
            (Some(Credential::Id), _, Some(scope)) => Err(format!(
                "an ID token has no scope {scope}; write credential=access, or audience= instead"
            )),
            (Some(Credential::Id), ..) if self.scheme == Some(AuthScheme::Basic) => Err(
                "scheme=basic is for access tokens (user oauth2accesstoken); an ID token is always bearer"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Checks for contradictions between the options that name an identity or a kind of token, and the others.
    fn validate_identity(&self) -> Result<(), String> {
        let credential = self.effective_credential();
        if let (Some(delegate), None) = (self.delegates.first(), &self.impersonate) {
            return Err(format!(
                "delegate {} needs impersonate=TARGET; name the target, or write the chain as \
                 --impersonate-service-account A,B,TARGET",
                quoted(delegate)
            ));
        }
        if let Some(credential @ (Credential::None | Credential::Deny)) = credential {
            let subject = self.subject.as_ref().map(|subject| ("subject", &**subject));
            let target = self
                .impersonate
                .as_ref()
                .map(|target| ("impersonate", &**target));
            let jwt = self.jwt.then_some(("token", "jwt"));
            if let Some((name, value)) = subject.or(target).or(jwt) {
                return Err(format!(
                    "credential={credential} does not accept {name} {}; write credential=access or id, or remove it",
                    quoted(value)
                ));
            }
        }
        if self.jwt && credential != Some(Credential::Id) {
            return Err(
                "token=jwt is a form of ID token, for IAP; write credential=id, or remove it"
                    .to_owned(),
            );
        }
        let Some(subject) = self.subject.as_deref().map(quoted) else {
            return Ok(());
        };
        match credential {
            Some(Credential::Id) => Err(format!(
                "subject {subject} is for access tokens, and an ID token is always of a service account; write \
                 credential=access and scope=, or leave subject out"
            )),
            _ if self.scopes.is_empty() => Err(format!(
                "subject {subject} needs the scopes that the domain's administrator has allowed; add scope=, like \
                 scope=https://www.googleapis.com/auth/drive.readonly"
            )),
            _ => Ok(()),
        }
    }
}

fn once<T>(name: &str, text: &str, slot: &mut Option<T>, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!(
            "{name} is given twice, the second time as {}; keep one",
            quoted(text)
        )),
    }
}

fn parse<T: FromStr<Err = InvalidValue>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|InvalidValue(text)| text)
}

fn audience(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Err(
            "audience is empty; write the receiver's URL or its OAuth client id".to_owned(),
        );
    }
    if value.len() > MAX_AUDIENCE {
        return Err(format!(
            "audience {}… is {} characters long; the maximum is {MAX_AUDIENCE}",
            quoted(value),
            value.len()
        ));
    }
    if !is_visible(value) {
        return Err(format!(
            "audience {} must consist of visible ASCII characters",
            quoted(value)
        ));
    }
    Ok(value.to_owned())
}

fn scope(value: &str) -> Result<String, String> {
    // RFC 6749, 3.3. A comma separates scopes in a request to the metadata server.
    if value.is_empty() || !is_visible(value) || value.contains(',') {
        return Err(format!(
            "scope {} is not one scope such as https://www.googleapis.com/auth/cloud-platform; repeat the option for \
             several",
            quoted(value)
        ));
    }
    Ok(value.to_owned())
}

fn account(value: &str) -> Result<String, String> {
    if is_account_email(value) || value == "default" {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "account {} is neither `default` nor an e-mail address such as \
             my-account@my-project.iam.gserviceaccount.com",
            quoted(value)
        ))
    }
}

fn service_account(name: &str, value: &str) -> Result<String, String> {
    if is_account_email(value) {
        return Ok(value.to_owned());
    }
    Err(format!(
        "{name} {} is not the e-mail address of a service account, such as \
         my-account@my-project.iam.gserviceaccount.com; repeat delegate= for several",
        quoted(value)
    ))
}

fn subject(value: &str) -> Result<String, String> {
    // A person's address may contain any character of a dot-atom (RFC 5322, 3.2.3).
    let is_atom =
        |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let is_email = value.split_once('@').is_some_and(|(user, domain)| {
        !user.is_empty() && user.bytes().all(is_atom) && is_domain(domain)
    });
    if is_email && value.len() <= 254 {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "subject {} is not the e-mail address of a user of a Google Workspace domain, such as jane@example.com",
            quoted(value)
        ))
    }
}

/// Returns whether this is the e-mail address of a service account. It is used in the path of a URL.
pub(super) fn is_account_email(value: &str) -> bool {
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    value.len() <= 254
        && value.split_once('@').is_some_and(|(user, domain)| {
            !user.is_empty() && user.bytes().all(is_harmless) && is_domain(domain)
        })
}

/// Returns whether the text has at least two labels.
fn is_domain(domain: &str) -> bool {
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_harmless);
    domain.contains('.') && domain.split('.').all(is_label)
}

fn quota_project(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value)
        .ok()
        .filter(|_| !value.is_empty() && is_visible(value))
        .ok_or_else(|| format!("quota-project {} is not a project id", quoted(value)))
}

fn is_visible(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn unknown(name: &str) -> String {
    let nearest = nearest(name, RuleOptions::NAMES, |known| known.len() / 3 + 1)
        .map(|known| format!("did you mean {known}? "))
        .unwrap_or_default();
    format!(
        "unknown option {}; {nearest}use one of {}",
        quoted(name),
        RuleOptions::NAMES.join(", ")
    )
}

/// Shortens input for an error message and removes control characters.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    format!("{short:?}")
}

// === values that are keywords ===

/// Implements `FromStr` and `Display` for an option whose values are keywords.
macro_rules! words {
    ($type:ident, $option:literal, $($variant:ident),+) => {
        impl FromStr for $type {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                [$(Self::$variant),+]
                    .into_iter()
                    .find(|word| word.as_str() == text)
                    .ok_or_else(|| {
                        let words = [$(Self::$variant.as_str()),+].join(", ");
                        InvalidValue(format!("{} {} must be one of {words}", $option, quoted(text)))
                    })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(Credential, "credential", Access, Id, None, Deny);
words!(
    HeaderMode,
    "header",
    Auto,
    Authorization,
    XServerlessAuthorization,
    ProxyAuthorization
);
words!(Existing, "existing", Keep, Replace);
words!(AuthScheme, "scheme", Bearer, Basic);

impl serde::Serialize for Credential {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
