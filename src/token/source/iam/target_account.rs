//! The account that a call of the IAM Credentials API is for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::LIFETIME;

/// A service account at the API, and the delegates before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::token::source) struct TargetAccount {
    /// The URL of the account, up to the colon before the method.
    pub(super) url: Arc<str>,
    pub(super) email: Arc<str>,
    /// The delegates of the account. The first one is next to the caller.
    delegates: Arc<[Arc<str>]>,
    pub(super) lifetime: Duration,
}

// === impl TargetAccount ===

impl TargetAccount {
    /// Returns the account of a file's URL. Only the method after the last colon changes.
    pub(in crate::token::source) fn of_url(
        url: &str,
        email: &str,
        delegates: Arc<[Arc<str>]>,
        lifetime: Duration,
    ) -> Self {
        Self {
            url: url
                .rsplit_once(':')
                .map_or(url, |(account, _)| account)
                .into(),
            email: email.into(),
            delegates,
            lifetime,
        }
    }

    /// Returns an account of the universe.
    pub(in crate::token::source) fn of_universe(
        universe: &str,
        email: &str,
        delegates: &Arc<[Arc<str>]>,
    ) -> Self {
        Self {
            url: format!("https://iamcredentials.{universe}/v1/projects/-/serviceAccounts/{email}")
                .into(),
            email: email.into(),
            delegates: Arc::clone(delegates),
            lifetime: LIFETIME,
        }
    }

    /// Returns the same account without delegates.
    #[must_use]
    pub(in crate::token::source) fn without_delegates(self) -> Self {
        Self {
            delegates: [].into(),
            ..self
        }
    }

    pub(in crate::token::source) fn email(&self) -> &str {
        &self.email
    }

    /// Returns every account after the caller. The last one is this account.
    pub(super) fn chain(&self) -> impl Iterator<Item = &str> {
        self.delegates
            .iter()
            .chain([&self.email])
            .map(|email| &**email)
    }

    /// Returns the first account of the chain, and the target.
    pub(super) fn ends(&self) -> (&str, &str) {
        (self.delegates.first().unwrap_or(&self.email), &self.email)
    }

    /// Returns the pairs of caller and account in which a role may be missing, according to the text of a 403.
    /// Delegates need `implicitDelegation` on the next account. The last one needs the method's permission on the
    /// target.
    pub(super) fn hops<'a>(&'a self, caller: &'a str, reason: &str) -> Vec<(&'a str, &'a str)> {
        const OF_METHODS: [&str; 3] = ["getAccessToken", "getOpenIdToken", "signJwt"];
        let callers = [caller].into_iter().chain(self.chain());
        let mut hops: Vec<(&str, &str)> = callers.zip(self.chain()).collect();
        if reason.contains("implicitDelegation") && hops.len() > 1 {
            hops.pop();
        } else if OF_METHODS
            .iter()
            .any(|permission| reason.contains(permission))
        {
            hops.drain(..hops.len().saturating_sub(1));
        }
        let named = |hop: &&(&str, &str)| reason.contains(&format!("serviceAccounts/{}", hop.1));
        match hops.iter().find(named) {
            Some(hop) => vec![*hop],
            None => hops,
        }
    }

    pub(super) fn delegates(&self) -> Vec<String> {
        let name = |email: &Arc<str>| format!("projects/-/serviceAccounts/{email}");
        self.delegates.iter().map(name).collect()
    }
}

/// Names the endpoint in a message.
impl fmt::Display for TargetAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self
            .url
            .split_once("://")
            .map_or(&*self.url, |(_, rest)| rest);
        f.write_str(rest.split('/').next().unwrap_or(rest))
    }
}
