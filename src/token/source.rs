//! The token sources: the interface of a source, and the registry of sources.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fact::Fact;
use super::fetch_error::FetchError;
use super::logins::Logins;
use super::priority::FetchPriority;
use super::value::Token;
use crate::config::{Config, UpstreamConfig};
use crate::credentials::{Base, CredentialFile};
use crate::error::{SourceKind, TokenFault};
use crate::policy::{Principal, TokenKey, TokenKind};
use crate::telemetry::Metrics;
use crate::upstream::{BadRoots, SendableBody};

mod authorized_user;
mod context;
mod delegation;
mod endpoint;
mod external_account;
mod external_account_authorized_user;
mod fetch_limits;
mod iam;
mod impersonation;
mod jwt;
mod lateness;
mod login;
mod message;
pub(super) mod metadata;
mod nested;
mod quota_project;
mod request_secrets;
mod response_body;
#[cfg(test)]
pub(super) mod scripted;
mod service_account;
mod signed_jwt;
mod subject;
mod token_file;
mod transport;

use authorized_user::AuthorizedUserSource;
use context::SourceContext;
use delegation::DelegationSource;
use endpoint::EndpointClient;
use external_account::ExternalAccountSource;
use external_account_authorized_user::WorkforceUserSource;
use impersonation::{FileTarget, ImpersonationSource, Impersonator};
pub use metadata::MetadataClient;
use nested::NestedSource;
use service_account::ServiceAccountSource;
use signed_jwt::SignedJwtSource;
#[cfg(any(fuzzing, test))]
pub use subject::fuzz_subject_answers;
use transport::OpenTransport;

/// Added to a source's time limit. A fetch that takes even longer was suspended together with the instance.
const GRACE: Duration = Duration::from_secs(2);

/// The future of a fetch. It is boxed so that a source can be a trait object.
pub(super) type FetchFuture<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, FetchError>> + Send + 'a>>;

/// A token source, which also knows facts about the project and the account.
///
/// A source does not cache tokens and does not limit fetches of one key: a slot does both. Its errors name the endpoint
/// or file; [`retry`](super::retry::retry) does this for endpoints.
pub(super) trait TokenSource: fmt::Debug + Send + Sync {
    /// Names the source in a message: `the metadata server`.
    fn describe(&self) -> &str;

    /// Returns the kind of the source: the label of metrics, and the subject of its errors' titles and advice.
    fn kind(&self) -> SourceKind;

    /// Returns whether the source issues the tokens of this principal.
    fn serves(&self, principal: &Principal) -> bool;

    /// Returns whether the source issues tokens of this kind. Only some sources issue self-signed JWTs.
    fn issues(&self, kind: &TokenKind) -> bool {
        !matches!(kind, TokenKind::Jwt { .. })
    }

    /// Fetches a token. Completes within [`time_limit`](Self::time_limit).
    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token>;

    /// Returns the time limit of one fetch with all its attempts.
    fn time_limit(&self) -> Duration;

    /// Returns a fact as text, or `None` if the source does not know it.
    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        let _ = fact;
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// The metadata server next to a credential file. It knows the region, but issues no tokens.
#[derive(Debug)]
struct MetadataFacts(MetadataClient);

/// The token sources of the process. The first one that serves a principal and issues
/// the kind of token is used. Clones share the sources.
#[derive(Clone, Debug)]
pub struct TokenSources(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    sources: Vec<Arc<dyn TokenSource>>,
    context: SourceContext,
}

// === impl TokenSources ===

impl TokenSources {
    /// Creates the sources with the metadata server as the only one, for tests and benchmarks.
    pub fn metadata_only(metadata: MetadataClient) -> Self {
        Self::from_sources([Arc::new(metadata) as _])
    }

    /// Creates the sources of a configuration, in the order in which they are tried. `B` is the type of the bodies of
    /// requests to upstreams. Requests to endpoints use it too, so that the client is compiled once.
    /// `logins` has the refresh tokens that replaced those of files.
    ///
    /// # Errors
    ///
    /// Fails if the user's file of trust roots cannot be used.
    pub fn of_config<B: SendableBody + From<Bytes>>(
        config: &Config,
        metrics: &Arc<Metrics>,
        logins: &Logins,
    ) -> Result<Self, BadRoots> {
        Self::with_transport(transport::open::<B>, config, metrics, logins)
    }

    fn with_transport(
        open: OpenTransport,
        config: &Config,
        metrics: &Arc<Metrics>,
        logins: &Logins,
    ) -> Result<Self, BadRoots> {
        let context = SourceContext::default();
        let credentials = &config.credentials;
        let metadata = |searched| {
            MetadataClient::with_search(&config.metadata, config.token_timeout, searched)
        };
        let (mut target, mut unsigned) = (None, None);
        let mut sources: Vec<Arc<dyn TokenSource>> = match &credentials.base {
            Base::Metadata { searched } => vec![Arc::new(metadata(searched.clone()))],
            Base::File(loaded) => {
                let base = of_file(open, &loaded.file, loaded.name(), config, metrics, logins)?;
                target = FileTarget::of(&loaded.file);
                unsigned = (!loaded.file.is_of_account()).then(|| loaded.name());
                if target.is_some() {
                    vec![Arc::new(NestedSource(base))]
                } else {
                    vec![base]
                }
            }
        };
        let base_limit = sources.iter().map(|source| source.time_limit()).max();
        let impersonator = Impersonator::new(
            context.clone(),
            open,
            config.upstream.clone(),
            config.token_timeout,
            Arc::clone(metrics),
        );
        let impersonator = impersonator
            .over_base(base_limit.unwrap_or_default())
            .of_file(
                credentials.file().map(|loaded| &loaded.file),
                config.quota_project.as_ref(),
            )
            .with_file(target)
            .with_global(config.impersonate.as_ref())
            .without_account(unsigned);
        let impersonator = Arc::new(impersonator);
        sources.push(Arc::new(ImpersonationSource(Arc::clone(&impersonator))));
        sources.push(Arc::new(DelegationSource(Arc::clone(&impersonator))));
        sources.push(Arc::new(SignedJwtSource(impersonator))); // for any account that no source before signs for
        if credentials.file().is_some() && credentials.beside_metadata_server {
            sources.push(Arc::new(MetadataFacts(metadata(None)))); // the project's number and the region are in no file
        }
        for source in &sources {
            metrics.expect_fetches(source.kind());
        }
        Ok(Self(Arc::new(Registry { sources, context })))
    }

    pub(super) fn from_sources(sources: impl IntoIterator<Item = Arc<dyn TokenSource>>) -> Self {
        Self(Arc::new(Registry {
            sources: sources.into_iter().collect(),
            context: SourceContext::default(),
        }))
    }

    /// Returns the context with the cache and the facts.
    pub(super) fn context(&self) -> &SourceContext {
        &self.0.context
    }

    /// Fetches a token from the source of its principal.
    pub(super) async fn fetch(
        &self,
        key: &TokenKey,
        priority: &FetchPriority,
    ) -> Result<Token, FetchError> {
        match self.of_key(key) {
            Some(source) => source.fetch(key, priority).await,
            // Another principal's token must never be used.
            None => Err(FetchError::new(
                TokenFault::NoAccount,
                &format!("no source issues the tokens of {}", key.principal),
            )),
        }
        .map_err(|error| error.of_source(self.kind(key)))
    }

    /// Returns the kind of source that a key's token comes from. Without a source, it is the metadata server's.
    pub(super) fn kind(&self, key: &TokenKey) -> SourceKind {
        let source = self.of_key(key);
        source.map_or(SourceKind::Metadata, |source| source.kind())
    }

    /// Returns the time after which a running fetch counts as suspended and is no longer awaited.
    pub(super) fn limit(&self, key: &TokenKey) -> Duration {
        let source = self.of_key(key);
        source.map_or(Duration::ZERO, |source| source.time_limit()) + GRACE
    }

    /// Returns the sources that may know a fact. For an e-mail address, this is only the principal's source.
    pub(super) fn knowing(&self, fact: Fact<'_>) -> impl Iterator<Item = &dyn TokenSource> {
        let (one, all) = match fact {
            Fact::Email(principal) | Fact::Scopes(principal) => (self.of(principal), None),
            _ => (None, Some(self.iter())),
        };
        one.into_iter().chain(all.into_iter().flatten())
    }

    fn of_key(&self, key: &TokenKey) -> Option<&dyn TokenSource> {
        self.iter()
            .find(|source| source.serves(&key.principal) && source.issues(&key.kind))
    }

    fn of(&self, principal: &Principal) -> Option<&dyn TokenSource> {
        self.iter().find(|source| source.serves(principal))
    }

    fn iter(&self) -> impl Iterator<Item = &dyn TokenSource> {
        self.0.sources.iter().map(|source| &**source)
    }
}

/// Returns the source of a credential file, or of its source credential if it has one. `name` names it in messages.
fn of_file(
    open: OpenTransport,
    file: &CredentialFile,
    name: String,
    config: &Config,
    metrics: &Arc<Metrics>,
    logins: &Logins,
) -> Result<Arc<dyn TokenSource>, BadRoots> {
    let client = |upstream: &UpstreamConfig| {
        EndpointClient::new(open, upstream, config.token_timeout, Arc::clone(metrics))
    };
    let remote = client(&config.upstream)?;
    Ok(match file.clone() {
        CredentialFile::AuthorizedUser(file) => {
            Arc::new(AuthorizedUserSource::new(file, name, remote, logins))
        }
        CredentialFile::ExternalAccount(file) => {
            let local = match config.upstream.proxy {
                None => remote.clone(),
                // No proxy reaches the addresses of this machine.
                Some(_) => client(&UpstreamConfig {
                    proxy: None,
                    ..config.upstream.clone()
                })?,
            };
            Arc::new(ExternalAccountSource::new(*file, name, remote, local))
        }
        CredentialFile::ExternalAccountAuthorizedUser(file) => {
            Arc::new(WorkforceUserSource::new(file, name, remote, logins))
        }
        CredentialFile::Impersonated(file) => {
            of_file(open, &file.source, name, config, metrics, logins)?
        }
        CredentialFile::ServiceAccount(file) => {
            Arc::new(ServiceAccountSource::new(file, name, remote))
        }
    })
}

// === impl MetadataFacts ===

impl TokenSource for MetadataFacts {
    fn describe(&self) -> &str {
        self.0.describe()
    }

    fn kind(&self) -> SourceKind {
        self.0.kind()
    }

    fn serves(&self, _: &Principal) -> bool {
        false
    }

    fn fetch<'a>(
        &'a self,
        key: &'a TokenKey,
        priority: &'a FetchPriority,
    ) -> FetchFuture<'a, Token> {
        self.0.fetch(key, priority)
    }

    fn time_limit(&self) -> Duration {
        self.0.time_limit()
    }

    fn fact<'a>(&'a self, fact: Fact<'a>) -> FetchFuture<'a, Option<String>> {
        self.0.fact(fact)
    }
}
