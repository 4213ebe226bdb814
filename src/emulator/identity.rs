//! The identity of the emulator's tokens.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::destination::Host;

/// The `iss` of every ID token.
pub const ISSUER: &str = "https://accounts.google.com";

/// The account, project and region of the emulated instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The service account's e-mail address.
    pub email: Email,
    /// The project's id.
    pub project_id: ProjectId,
    /// The project's number.
    pub project_number: u64,
    /// The region of the instance.
    pub region: Region,
    /// The lifetime of new tokens.
    pub lifetime: Lifetime,
}

/// An e-mail address of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// A project's id. It may have the form `DOMAIN:ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectId(String);

/// A region, such as `us-central1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region(String);

/// A token's lifetime: whole seconds from 1 s to 12 h, the maximum of Google's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(u64);

/// The reason that a text is not a part of an identity, and the expected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Not an e-mail address.
    #[error("write NAME@DOMAIN, such as shop-runner@example-project.iam.gserviceaccount.com")]
    Email,
    /// Not a project id.
    #[error("write lower case letters, digits and hyphens, such as example-project")]
    ProjectId,
    /// Not a region.
    #[error("write a region such as us-central1")]
    Region,
    /// Not a duration, or out of bounds.
    #[error("write a time from 1s to 12h, such as 1h or 90s")]
    Lifetime,
}

// === impl Identity ===

impl Default for Identity {
    /// Returns the account of an example project, with tokens for an hour.
    fn default() -> Self {
        let project_id = ProjectId("example-project".to_owned());
        Self {
            email: Email::of_project(&project_id),
            project_id,
            project_number: 424_242,
            region: Region("us-central1".to_owned()),
            lifetime: Lifetime(3600),
        }
    }
}

// === impl Email ===

impl Email {
    /// Returns the default account of a project. It is user-managed, because the sidecar warns of Compute Engine's
    /// default account.
    pub(crate) fn of_project(project: &ProjectId) -> Self {
        // The project `example.com:shop` has the domain `shop.example.com`.
        let domain = match project.0.split_once(':') {
            Some((organisation, name)) => format!("{name}.{organisation}"),
            None => project.0.clone(),
        };
        Self(format!("emulator@{domain}.iam.gserviceaccount.com"))
    }

    /// Returns the address.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, domain) = text.split_once('@').ok_or(InvalidIdentity::Email)?;
        let local_is_valid =
            (1..=64).contains(&local.len()) && local.bytes().all(is_email_character);
        match Host::parse(domain) {
            // A host name may end with a dot, an address may not.
            Ok(Host::Name(_)) if local_is_valid && !domain.ends_with('.') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidIdentity::Email),
        }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ProjectId ===

impl FromStr for ProjectId {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| is_slug_character(b) || b == b':' || b == b'.');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdentity::ProjectId)
        }
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Region ===

impl FromStr for Region {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(is_slug_character);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdentity::Region)
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Lifetime ===

impl Lifetime {
    /// Returns the lifetime in seconds.
    pub(crate) const fn as_secs(self) -> u64 {
        self.0
    }
}

impl FromStr for Lifetime {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lifetime = humantime::parse_duration(text).map_err(|_| InvalidIdentity::Lifetime)?;
        match lifetime.as_secs() {
            seconds @ 1..=43_200 if lifetime == Duration::from_secs(seconds) => Ok(Self(seconds)),
            _ => Err(InvalidIdentity::Lifetime),
        }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0)).fmt(f)
    }
}

const fn is_email_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+')
}

const fn is_slug_character(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_service_accounts_are_accepted() {
        for text in [
            "app@example-project.iam.gserviceaccount.com",
            "424242-compute@developer.gserviceaccount.com",
            "example-project@appspot.gserviceaccount.com",
        ] {
            assert_eq!(text.parse::<Email>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_text_that_is_not_an_address_is_rejected() {
        for text in [
            "",
            "app",
            "@example.com",
            "app@",
            "app@a@b",
            "a/b@example.com",
            "app@1.2.3.4",
            "app@example.com.",
            "a p@example.com",
            "app@exa mple.com",
            "äpp@example.com",
        ] {
            assert_eq!(text.parse::<Email>(), Err(InvalidIdentity::Email), "{text}");
        }
    }

    #[test]
    fn projects_and_regions_are_lower_case_names() {
        assert!("example.com:app-1".parse::<ProjectId>().is_ok());
        assert!("europe-west1".parse::<Region>().is_ok());
        for text in ["", "1st", "App", "a/b", "a b", "a\n"] {
            assert!(text.parse::<ProjectId>().is_err(), "{text}");
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }

    #[test]
    fn lifetimes_are_whole_seconds_up_to_twelve_hours() {
        assert_eq!("1h".parse(), Ok(Lifetime(3600)));
        assert_eq!("90s".parse(), Ok(Lifetime(90)));
        assert_eq!("12h".parse(), Ok(Lifetime(43_200)));
        for text in [
            "", "0s", "500ms", "1s 1ms", "12h 1s", "an hour", "-1s", "3600",
        ] {
            assert_eq!(
                text.parse::<Lifetime>(),
                Err(InvalidIdentity::Lifetime),
                "{text}"
            );
        }
    }
}
