//! The options of a rule or route in the form that decisions use: cloning a text is a reference count.

use std::sync::Arc;

use http::HeaderValue;

use super::decision::Credential;
use super::identity::IdentityOptions;
use super::impersonation::Impersonation;
use super::principal::Principal;
use super::rule::{AuthScheme, Existing, HeaderMode, RuleOptions};

/// [`RuleOptions`] with shared texts. The scopes are sorted and without duplicates.
#[derive(Clone, Debug, Default)]
pub(super) struct ResolvedOptions {
    pub(super) credential: Option<Credential>,
    pub(super) audience: Option<Arc<str>>,
    pub(super) scopes: Arc<[Arc<str>]>,
    pub(super) header: Option<HeaderMode>,
    pub(super) existing: Option<Existing>,
    identity: IdentityOptions,
    pub(super) jwt: bool,
    pub(super) quota_project: Option<HeaderValue>,
    pub(super) scheme: Option<AuthScheme>,
    pub(super) plaintext: bool,
}

impl ResolvedOptions {
    /// Fills the options that are not set from `below`.
    #[must_use]
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            credential: self.credential.or(below.credential),
            audience: self.audience.or_else(|| below.audience.clone()),
            scopes: if self.scopes.is_empty() {
                Arc::clone(&below.scopes)
            } else {
                self.scopes
            },
            header: self.header.or(below.header),
            existing: self.existing.or(below.existing),
            identity: self.identity.over(&below.identity),
            jwt: self.jwt || below.jwt,
            quota_project: self.quota_project.or_else(|| below.quota_project.clone()),
            scheme: self.scheme.or(below.scheme),
            plaintext: self.plaintext || below.plaintext,
        }
    }

    /// Returns whether the options determine the token without the destination.
    pub(super) fn is_complete(&self) -> bool {
        match self.credential {
            None => false,
            Some(Credential::Id) => self.audience.is_some(),
            Some(Credential::Access | Credential::None | Credential::Deny) => true,
        }
    }

    /// Returns whose token a key is for.
    pub(super) fn principal(&self) -> &Principal {
        self.identity.principal()
    }

    /// Resolves `options` under `--impersonate-service-account`.
    pub(super) fn new(options: &RuleOptions, global: Option<&Impersonation>) -> Self {
        let mut scopes: Vec<Arc<str>> = options
            .scopes
            .iter()
            .map(|scope| scope.as_str().into())
            .collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self {
            credential: options.effective_credential(),
            audience: options.audience.as_deref().map(Arc::from),
            scopes: scopes.into(),
            header: options.header,
            existing: options.existing,
            identity: IdentityOptions::new(options, global),
            jwt: options.jwt,
            quota_project: options.quota_project.clone(),
            scheme: options.scheme,
            plaintext: options.plaintext,
        }
    }
}
