//! What the metadata server knows beside tokens: universe, project, region, account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::StatusCode;

use super::clock::Now;
use super::failure::{Backoff, FetchError};
use super::source::metadata::MetadataClient;
use super::source::metadata::request::MetadataRequest;
use crate::destination::Host;
use crate::error::{Error, TokenFault};
use crate::policy::{Home, Principal, is_region};

/// The universe of everyone who does not know of another.
const DEFAULT_UNIVERSE: &str = "googleapis.com";

/// Facts about the instance, each asked for when it is first needed and known from then on. A failure is not remembered
/// longer than that of a token: the next try is due after 1, 2, 4 … 30 seconds.
#[derive(Clone, Debug)]
pub struct Facts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: MetadataClient,
    universe: CachedFact,
    project_id: CachedFact,
    project_number: CachedFact,
    region: CachedFact,
    /// By principal. Principals come from the configuration, so they are few.
    emails: Mutex<HashMap<Principal, Arc<CachedFact>>>,
}

#[derive(Debug, Default)]
struct CachedFact {
    known: OnceLock<Arc<str>>,
    /// Whoever holds it asks; the others wait for the same answer.
    asking: tokio::sync::Mutex<Backoff>,
}

// === impl Facts ===

impl Facts {
    /// `universe` is the configuration's, where it names one; the server is not asked then.
    pub fn new(client: MetadataClient, universe: Option<Arc<str>>) -> Self {
        Self(Arc::new(Inner {
            client,
            universe: universe.map(CachedFact::known).unwrap_or_default(),
            project_id: CachedFact::default(),
            project_number: CachedFact::default(),
            region: CachedFact::default(),
            emails: Mutex::default(),
        }))
    }

    /// The universe domain: the suffix of the Google APIs whose tokens this metadata server gives.
    ///
    /// # Errors
    ///
    /// As for a token. A server that knows of no universe is no error: then it is `googleapis.com`.
    pub async fn universe(&self) -> Result<Arc<str>, Error> {
        let request = MetadataRequest::fact("universe/universe-domain", "the universe domain");
        let ask = async {
            match self.0.client.text(&request).await {
                Ok(text) if text.is_empty() => Ok(DEFAULT_UNIVERSE.to_owned()),
                Err(error) if error.status == Some(StatusCode::NOT_FOUND) => {
                    Ok(DEFAULT_UNIVERSE.to_owned())
                }
                other => other,
            }
        };
        self.0.universe.learn(&request, ask, universe).await
    }

    /// The project's id.
    ///
    /// # Errors
    ///
    /// As for a token.
    pub async fn project_id(&self) -> Result<Arc<str>, Error> {
        let request = MetadataRequest::fact("project/project-id", "the project's id");
        let ask = self.0.client.text(&request);
        self.0.project_id.learn(&request, ask, project_id).await
    }

    /// The project's number.
    ///
    /// # Errors
    ///
    /// As for a token.
    pub async fn project_number(&self) -> Result<Arc<str>, Error> {
        let request = MetadataRequest::fact("project/numeric-project-id", "the project's number");
        let ask = self.0.client.text(&request);
        let fact = &self.0.project_number;
        fact.learn(&request, ask, project_number).await
    }

    /// The region. A machine that has none of its own, as on Compute Engine, is in that of its zone.
    ///
    /// # Errors
    ///
    /// As for a token.
    pub async fn region(&self) -> Result<Arc<str>, Error> {
        let request = MetadataRequest::fact("instance/region", "the region");
        let ask = async {
            match self.0.client.text(&request).await {
                Err(error) if error.status == Some(StatusCode::NOT_FOUND) => {
                    let request = MetadataRequest::fact("instance/zone", "the zone");
                    self.0.client.text(&request).await
                }
                other => other,
            }
        };
        self.0.region.learn(&request, ask, region).await
    }

    /// Project number and region, as far as they are known already.
    pub fn home_if_known(&self) -> Home {
        Home {
            project_number: self.0.project_number.known.get().cloned(),
            region: self.0.region.known.get().cloned(),
        }
    }

    /// The e-mail address of a principal.
    ///
    /// # Errors
    ///
    /// As for a token.
    pub async fn email(&self, principal: &Principal) -> Result<Arc<str>, Error> {
        let request = MetadataRequest::email(principal);
        let fact = self.email_fact(principal);
        let ask = self.0.client.text(&request);
        fact.learn(&request, ask, email).await
    }

    /// The universe domain, where it is known already.
    pub fn universe_if_known(&self) -> Option<Arc<str>> {
        self.0.universe.known.get().cloned()
    }

    /// The project's id, where it is known already.
    pub fn project_id_if_known(&self) -> Option<Arc<str>> {
        self.0.project_id.known.get().cloned()
    }

    /// The e-mail address of a principal, where it is known already.
    pub fn email_if_known(&self, principal: &Principal) -> Option<Arc<str>> {
        let fact = self.emails().get(principal).cloned()?;
        fact.known.get().cloned()
    }

    fn email_fact(&self, principal: &Principal) -> Arc<CachedFact> {
        let mut emails = self.emails();
        let fact = emails.entry(principal.clone()).or_default();
        Arc::clone(fact)
    }

    fn emails(&self) -> MutexGuard<'_, HashMap<Principal, Arc<CachedFact>>> {
        self.0.emails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CachedFact ===

impl CachedFact {
    fn known(value: Arc<str>) -> Self {
        Self {
            known: OnceLock::from(value),
            ..Self::default()
        }
    }

    async fn learn(
        &self,
        request: &MetadataRequest,
        ask: impl Future<Output = Result<String, FetchError>>,
        check: impl Fn(&str) -> Option<Arc<str>>,
    ) -> Result<Arc<str>, Error> {
        if let Some(known) = self.known.get() {
            return Ok(Arc::clone(known));
        }
        let mut backoff = self.asking.lock().await;
        // Another request may have learned it, or failed to, while this one waited.
        if let Some(known) = self.known.get() {
            return Ok(Arc::clone(known));
        }
        if let Some((error, wait)) = backoff.last_error().zip(backoff.left(Now::now())) {
            return Err(error.to_error(wait));
        }
        let answer = ask.await.and_then(|text| {
            check(&text).ok_or_else(|| {
                let detail = format!("{}: the metadata server's answer is none", request.what);
                FetchError::new(TokenFault::Malformed, &detail)
            })
        });
        match answer {
            Ok(value) => {
                backoff.succeeded();
                Ok(Arc::clone(self.known.get_or_init(|| value)))
            }
            Err(error) => {
                let now = Now::now();
                tracing::warn!("{}", error.detail());
                backoff.failed(error.clone(), false, now);
                Err(error.to_error(backoff.left(now).unwrap_or_default()))
            }
        }
    }
}

/// A host name of at least two labels: one label would make a whole top-level domain Google's.
fn universe(text: &str) -> Option<Arc<str>> {
    match Host::parse(text).ok()? {
        Host::Name(name) => name.contains('.').then_some(name),
        Host::Ip(_) => None,
    }
}

/// `[a-z0-9:.-]`; older projects have a domain in front, those of other universes a prefix.
fn project_id(text: &str) -> Option<Arc<str>> {
    let is_valid = (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":.-".contains(&b));
    is_valid.then(|| text.into())
}

/// Digits; today's have up to 13.
fn project_number(text: &str) -> Option<Arc<str>> {
    let is_valid = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_valid.then(|| text.into())
}

/// `projects/NUMBER/regions/REGION`, or `projects/NUMBER/zones/REGION-X`.
fn region(text: &str) -> Option<Arc<str>> {
    let last = text.rsplit('/').next()?;
    let zone = || last.rsplit_once('-').map(|(region, _)| region);
    let region = if is_region(last) { last } else { zone()? };
    is_region(region).then(|| region.into())
}

/// Visible ASCII. Not every account looks like an address: on GKE it may be a workload identity pool.
fn email(text: &str) -> Option<Arc<str>> {
    let is_valid =
        (1..=320).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then(|| text.into())
}

#[cfg(test)]
mod tests;
