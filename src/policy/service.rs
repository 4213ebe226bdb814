//! Service names: `http://billing/` is the Cloud Run service of that name in the sidecar's own project and region,
//! `http://billing.europe-west1/` the one in that region.
//!
//! Every service has a URL that needs no look-up, `https://NAME-PROJECTNUMBER.REGION.run.app`; a DNS label of 63
//! characters must hold its first part. Regions are known by their shape: a new one needs no release.

use std::fmt;
use std::sync::Arc;

use super::evaluate::Policy;
use crate::destination::{Destination, Host, Origin, Scheme};

/// The domain of the long form, `billing.europe-west1.run.internal`.
const RUN_INTERNAL: &str = "run.internal";

/// The longest label of DNS (RFC 1035, 2.3.4).
const LABEL: usize = 63;

/// The name of a Cloud Run service, as apps call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    name: Arc<str>,
    region: Option<Arc<str>>,
}

/// Why a name is none of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no name of a Cloud Run service: {why}")]
pub struct InvalidService {
    name: String,
    why: String,
}

/// Project number and region of the sidecar, as far as the metadata server has said them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLocation {
    /// `project/numeric-project-id`.
    pub project_number: Option<Arc<str>>,
    /// The last part of `instance/region`.
    pub region: Option<Arc<str>>,
}

// === impl ServiceName ===

impl ServiceName {
    /// Takes `NAME`, `NAME.REGION` or `NAME.REGION.run.internal`, in lower case.
    ///
    /// # Errors
    ///
    /// It has another form, or no service can have that name.
    pub fn parse(text: &str) -> Result<Self, InvalidService> {
        let invalid = |why: &str| InvalidService::new(text, why);
        let short = match text.strip_suffix(RUN_INTERNAL) {
            Some(rest) => match rest.strip_suffix('.') {
                Some(rest) if rest.contains('.') => rest,
                _ => return Err(invalid("write SERVICE.REGION.run.internal")),
            },
            None => text,
        };
        let (name, region) = match short.split_once('.') {
            Some((name, region)) if is_region(region) => (name, Some(region)),
            Some(_) => {
                return Err(invalid("after the dot must be a region, like europe-west1"));
            }
            None => (short, None),
        };
        if let Some(why) = why_not(name) {
            return Err(invalid(why));
        }
        Ok(Self {
            name: name.into(),
            region: region.map(Into::into),
        })
    }

    /// The service that a host is the name of, on the ports that services have; none for what has a meaning in DNS, or is
    /// this machine.
    pub fn of(destination: &Destination) -> Option<Result<Self, InvalidService>> {
        let origin = &destination.origin;
        let host = origin.host.name()?;
        if !origin.is_default_port() || destination.userinfo || origin.host.is_loopback() {
            return None;
        }
        let is_one = match host.split_once('.') {
            None => true,
            Some((_, region)) if is_region(region) => true,
            Some(_) => host
                .strip_suffix(RUN_INTERNAL)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        is_one.then(|| Self::parse(host))
    }

    /// The region, where the name says one.
    pub fn region(&self) -> Option<&Arc<str>> {
        self.region.as_ref()
    }

    /// Where the service answers; what is not known yet stands there in capitals, as documents write it.
    ///
    /// # Errors
    ///
    /// Name and number are no label of DNS together: such a service has no URL of this kind.
    pub fn at(&self, home: &ServiceLocation) -> Result<Origin, InvalidService> {
        let number = home.project_number.as_deref().unwrap_or("PROJECTNUMBER");
        let region = self.region.as_ref().or(home.region.as_ref());
        let region = region.map_or("REGION", |region| region);
        let length = self.name.len() + 1 + number.len();
        if length > LABEL {
            return Err(InvalidService::new(
                &self.name,
                &format!(
                    "with the project's number it has {length} characters, and a label of DNS at most {LABEL}; call its \
                     other URL, the one with a hash"
                ),
            ));
        }
        Ok(Origin {
            scheme: Scheme::Https,
            host: Host::Name(format!("{}-{number}.{region}.run.app", self.name).into()),
            port: Scheme::Https.default_port(),
        })
    }

    /// The origin that an app's URL of it has.
    pub fn origin(&self) -> Origin {
        Origin {
            scheme: Scheme::Https,
            host: Host::Name(self.to_string().into()),
            port: Scheme::Https.default_port(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{}.{region}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

// === impl InvalidService ===

impl InvalidService {
    fn new(name: &str, why: &str) -> Self {
        Self {
            name: name.chars().filter(|c| !c.is_control()).take(80).collect(),
            why: why.to_owned(),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// The service that a call through the forward proxy means by its name, where `--discover` is on. A rule that names
    /// the destination as it is written comes first, and so does the metadata server.
    pub fn service(
        &self,
        destination: &Destination,
    ) -> Option<Result<ServiceName, InvalidService>> {
        let asked = self.settings.discover
            && !self.is_metadata(&destination.origin)
            && !self.has_rule_for(destination);
        asked.then(|| ServiceName::of(destination)).flatten()
    }
}

/// Two words or more with hyphens between them, the last with a number: `us-central1`, `northamerica-northeast2`.
pub fn is_region(text: &str) -> bool {
    let Some((words, last)) = text.rsplit_once('-') else {
        return false;
    };
    let direction = last.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    text.len() <= LABEL
        && direction.len() < last.len()
        && is_word(direction)
        && words.split('-').all(is_word)
}

/// What keeps a text from being a service's name.
fn why_not(name: &str) -> Option<&'static str> {
    match name {
        "metadata" => return Some("that is the metadata server"),
        "localhost" => return Some("that is this machine"),
        _ => {}
    }
    let harmless = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || name.ends_with('-')
        || !name.bytes().all(harmless)
    {
        return Some(
            "it has lower-case letters, digits and hyphens, first a letter, last no hyphen",
        );
    }
    (name.len() > LABEL).then_some("a label of DNS has at most 63 characters")
}

#[cfg(test)]
mod tests;
