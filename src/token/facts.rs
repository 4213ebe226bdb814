//! The facts that sources know in addition to tokens: universe, project, region, account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use super::backoff::Backoff;
use super::clock::Now;
use super::fact::Fact;
use super::fetch_error::FetchError;
use super::source::TokenSources;
use crate::destination::Host;
use crate::error::{Error, TokenFault};
use crate::lock::lock;
use crate::policy::{DEFAULT_UNIVERSE, Principal, ServiceLocation, is_region};

/// Facts about the project and the accounts. Each is requested when it is first needed, from the first source that
/// knows it, and cached from then on. After a failure, the same backoff as for tokens applies: 1, 2, 4 … 30 seconds.
#[derive(Clone, Debug)]
pub struct Facts(Arc<FactsInner>);

#[derive(Debug)]
pub(super) struct FactsInner {
    sources: TokenSources,
    universe: CachedFact,
    project_id: CachedFact,
    project_number: CachedFact,
    region: CachedFact,
    /// Principals come from the configuration, so they are few.
    emails: Mutex<HashMap<Principal, Arc<CachedFact>>>,
    scopes: Mutex<HashMap<Principal, Arc<CachedFact>>>,
}

#[derive(Debug, Default)]
struct CachedFact {
    known: OnceLock<Arc<str>>,
    /// One task requests the fact and holds the lock; the others wait for its result.
    fetching: tokio::sync::Mutex<Backoff>,
}

// === impl Facts ===

impl Facts {
    /// Creates the facts of these sources. If the configuration names the universe, no source is queried for it.
    pub fn new(sources: TokenSources, universe: Option<Arc<str>>) -> Self {
        let inner = Arc::new(FactsInner {
            sources,
            universe: universe.map(CachedFact::known).unwrap_or_default(),
            project_id: CachedFact::default(),
            project_number: CachedFact::default(),
            region: CachedFact::default(),
            emails: Mutex::default(),
            scopes: Mutex::default(),
        });
        inner.sources.context().set_facts(&inner);
        Self(inner)
    }

    /// Returns the facts that a source refers to, unless they were dropped.
    pub(super) fn upgrade(inner: &Weak<FactsInner>) -> Option<Self> {
        inner.upgrade().map(Self)
    }

    /// Returns the universe domain: the suffix of the Google APIs that take the sources' tokens. If no source knows
    /// one, it is `googleapis.com`.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub async fn universe(&self) -> Result<Arc<str>, Error> {
        let fetch = async {
            let known = self.request(Fact::Universe).await?;
            Ok(known.unwrap_or_else(|| DEFAULT_UNIVERSE.into()))
        };
        self.0.universe.get_or_fetch(fetch).await
    }

    /// Checks that there is a source, and logs nothing.
    ///
    /// # Errors
    ///
    /// Fails if no credentials were found, or if the metadata server is disabled. Other errors may end by themselves.
    pub(crate) async fn check_source_exists(&self) -> Result<(), Error> {
        match self.request(Fact::Universe).await {
            Err(error)
                if matches!(
                    error.fault(),
                    TokenFault::NothingFound | TokenFault::Disabled
                ) =>
            {
                Err(error.to_error(Duration::ZERO))
            }
            _ => Ok(()),
        }
    }

    /// Returns the project's id.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub async fn project_id(&self) -> Result<Arc<str>, Error> {
        self.0
            .project_id
            .get_or_fetch(self.require(Fact::ProjectId))
            .await
    }

    /// Returns the project's number.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub(crate) async fn project_number(&self) -> Result<Arc<str>, Error> {
        let fetch = self.require(Fact::ProjectNumber);
        self.0.project_number.get_or_fetch(fetch).await
    }

    /// Returns the region.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub(crate) async fn region(&self) -> Result<Arc<str>, Error> {
        self.0.region.get_or_fetch(self.require(Fact::Region)).await
    }

    /// Returns project number and region, as far as they are known already.
    pub(crate) fn location_if_known(&self) -> ServiceLocation {
        ServiceLocation {
            project_number: self.0.project_number.known.get().cloned(),
            region: self.0.region.known.get().cloned(),
        }
    }

    /// Returns the e-mail address of a principal.
    ///
    /// # Errors
    ///
    /// Fails if the fetch fails, like a token's.
    pub async fn email(&self, principal: &Principal) -> Result<Arc<str>, Error> {
        let fact = self.email_fact(principal);
        fact.get_or_fetch(self.require(Fact::Email(principal)))
            .await
    }

    /// Returns the scopes that the machine gives to the access tokens of a principal, separated by spaces. Only the
    /// metadata server knows them.
    ///
    /// # Errors
    ///
    /// Fails if no source knows them.
    pub(crate) async fn scopes(&self, principal: &Principal) -> Result<Arc<str>, Error> {
        let fact = Arc::clone(lock(&self.0.scopes).entry(principal.clone()).or_default());
        fact.get_or_fetch(self.require(Fact::Scopes(principal)))
            .await
    }

    /// Returns the universe domain, if it is known already.
    pub fn universe_if_known(&self) -> Option<Arc<str>> {
        self.0.universe.known.get().cloned()
    }

    /// Returns the project's id, if it is known already.
    pub fn project_id_if_known(&self) -> Option<Arc<str>> {
        self.0.project_id.known.get().cloned()
    }

    /// Returns the e-mail address of a principal, if it is known already.
    pub fn email_if_known(&self, principal: &Principal) -> Option<Arc<str>> {
        let fact = self.emails().get(principal).cloned()?;
        fact.known.get().cloned()
    }

    /// Requests a fact from the sources; it is an error if none knows it.
    async fn require(&self, fact: Fact<'_>) -> Result<Arc<str>, FetchError> {
        self.request(fact).await?.ok_or_else(|| {
            let detail = format!("{}: no source knows it", fact.what());
            FetchError::new(TokenFault::Unsupported, &detail)
        })
    }

    /// Requests a fact from the sources, one after another until one knows it.
    async fn request(&self, fact: Fact<'_>) -> Result<Option<Arc<str>>, FetchError> {
        for source in self.0.sources.knowing(fact) {
            if let Some(text) = source.fact(fact).await? {
                return fact.parse(&text).map(Some).ok_or_else(|| {
                    let detail = format!(
                        "{}: {} returned an invalid value",
                        fact.what(),
                        source.describe()
                    );
                    FetchError::new(TokenFault::Malformed, &detail)
                });
            }
        }
        Ok(None)
    }

    fn email_fact(&self, principal: &Principal) -> Arc<CachedFact> {
        let mut emails = self.emails();
        let fact = emails.entry(principal.clone()).or_default();
        Arc::clone(fact)
    }

    fn emails(&self) -> MutexGuard<'_, HashMap<Principal, Arc<CachedFact>>> {
        lock(&self.0.emails)
    }
}

// === impl Fact ===

impl Fact<'_> {
    /// Names the fact in a message.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Email(_) => "the account's e-mail address",
            Self::ProjectId => "the project's id",
            Self::ProjectNumber => "the project's number",
            Self::Region => "the region",
            Self::Scopes(_) => "the scopes of the account",
            Self::Universe => "the universe domain",
        }
    }

    /// Validates a source's value. `None` if it is not valid.
    fn parse(self, text: &str) -> Option<Arc<str>> {
        match self {
            Self::Email(_) => email(text),
            Self::ProjectId => project_id(text),
            Self::ProjectNumber => project_number(text),
            Self::Region => region(text),
            Self::Scopes(_) => scopes(text),
            Self::Universe => universe(text),
        }
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

    async fn get_or_fetch(
        &self,
        fetch: impl Future<Output = Result<Arc<str>, FetchError>>,
    ) -> Result<Arc<str>, Error> {
        if let Some(known) = self.known.get() {
            return Ok(Arc::clone(known));
        }
        let mut backoff = self.fetching.lock().await;
        // Another request may have fetched it, or failed, while this one waited.
        if let Some(known) = self.known.get() {
            return Ok(Arc::clone(known));
        }
        if let Some((error, wait)) = backoff.last_error().zip(backoff.left(Now::now())) {
            return Err(error.to_error(wait));
        }
        match fetch.await {
            Ok(value) => {
                backoff.succeeded();
                Ok(Arc::clone(self.known.get_or_init(|| value)))
            }
            Err(error) => {
                let now = Now::now();
                // A fact that a credential file does not contain is not a failure.
                if error.fault() == TokenFault::Unsupported || error.is_repeated {
                    tracing::debug!("{}", error.detail());
                } else {
                    let help = error.fault().page();
                    tracing::warn!(help, "{}", error.detail());
                }
                backoff.failed(error.clone(), false, now);
                Err(error.to_error(backoff.left(now).unwrap_or_default()))
            }
        }
    }
}

/// Accepts a host name of at least two labels. With one label, a whole top-level domain would count as Google's.
fn universe(text: &str) -> Option<Arc<str>> {
    match Host::parse(text).ok()? {
        Host::Name(name) => name.contains('.').then_some(name),
        Host::Ip(_) => None,
    }
}

/// Accepts `[a-z0-9:.-]`. The ids of older projects start with a domain, those of other universes with a prefix.
fn project_id(text: &str) -> Option<Arc<str>> {
    let is_valid = (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":.-".contains(&b));
    is_valid.then(|| text.into())
}

/// Accepts digits. Project numbers have up to 13 today.
fn project_number(text: &str) -> Option<Arc<str>> {
    let is_valid = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_valid.then(|| text.into())
}

/// Reads `projects/NUMBER/regions/REGION` or `projects/NUMBER/zones/REGION-X`.
fn region(text: &str) -> Option<Arc<str>> {
    let last = text.rsplit('/').next()?;
    let zone = || last.rsplit_once('-').map(|(region, _)| region);
    let region = if is_region(last) { last } else { zone()? };
    is_region(region).then(|| region.into())
}

/// Accepts visible ASCII. An account need not look like an address: on GKE it may be a workload identity pool.
fn email(text: &str) -> Option<Arc<str>> {
    let is_valid =
        (1..=320).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then(|| text.into())
}

/// Accepts visible ASCII in lines.
fn scopes(text: &str) -> Option<Arc<str>> {
    let scopes: Vec<&str> = text.split_ascii_whitespace().collect();
    let is_valid = !scopes.is_empty()
        && text.len() <= 8192
        && scopes
            .iter()
            .all(|scope| scope.bytes().all(|byte| byte.is_ascii_graphic()));
    is_valid.then(|| scopes.join(" ").into())
}

#[cfg(test)]
mod tests;
