//! Service names: `http://billing/` is the Cloud Run service of that name in the sidecar's own project and region,
//! `http://billing.europe-west1/` the one in that region.
//!
//! Every service has a URL that can be computed: `https://NAME-PROJECTNUMBER.REGION.run.app`. Its first part is a DNS
//! label, so it has at most 63 characters. Regions are recognised by their syntax, so that new regions need no release.

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

/// Why a text is not a valid service name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not the name of a Cloud Run service: {why}")]
pub(crate) struct InvalidService {
    name: String,
    why: String,
}

/// The project number and region of the sidecar, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceLocation {
    /// `project/numeric-project-id`.
    pub(crate) project_number: Option<Arc<str>>,
    /// The last part of `instance/region`.
    pub(crate) region: Option<Arc<str>>,
}

// === impl ServiceName ===

impl ServiceName {
    /// Parses `NAME`, `NAME.REGION` or `NAME.REGION.run.internal`, in lower case.
    ///
    /// # Errors
    ///
    /// The text has another form, or is not a valid service name.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidService> {
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
                return Err(invalid(
                    "the text after the dot must be a region, like europe-west1",
                ));
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

    /// Returns the service that the host names. Returns `None` for hosts that DNS may resolve, for this machine, and
    /// for other ports than 80 and 443.
    pub(crate) fn of(destination: &Destination) -> Option<Result<Self, InvalidService>> {
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

    /// Returns the region, if the name contains one.
    pub(crate) fn region(&self) -> Option<&Arc<str>> {
        self.region.as_ref()
    }

    /// Returns the origin of the service. A part that is not known yet is a word in capitals, such as `REGION`.
    ///
    /// # Errors
    ///
    /// Name and number together exceed a DNS label. Such a service has no URL of this form.
    pub(crate) fn at(&self, location: &ServiceLocation) -> Result<Origin, InvalidService> {
        let number = location
            .project_number
            .as_deref()
            .unwrap_or("PROJECTNUMBER");
        let region = self.region.as_ref().or(location.region.as_ref());
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

    /// Returns the origin of the URL by which an app calls the service.
    pub(crate) fn origin(&self) -> Origin {
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
    /// Returns the service that a call through the forward proxy names, if `--discover` is set. A rule that matches the
    /// destination as written takes precedence, and so does the metadata server.
    pub(crate) fn service(
        &self,
        destination: &Destination,
    ) -> Option<Result<ServiceName, InvalidService>> {
        let asked = self.settings.discover
            && !self.is_metadata(&destination.origin)
            && !self.has_rule_for(destination);
        asked.then(|| ServiceName::of(destination)).flatten()
    }
}

/// Returns whether the text is two or more words joined by hyphens, the last with a number: `us-central1`.
pub(crate) fn is_region(text: &str) -> bool {
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

/// Returns why a text is not a valid service name.
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
            "it must have lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen",
        );
    }
    (name.len() > LABEL).then_some("a label of DNS has at most 63 characters")
}

#[cfg(test)]
mod tests;
