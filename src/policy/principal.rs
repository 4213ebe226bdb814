//! The identities that tokens are issued to.

use std::fmt;
use std::sync::Arc;

use super::impersonation::{Impersonation, without_own};

/// The holder of the base credential, if its name is not known.
pub(super) const BASE_CREDENTIAL: &str = "the base credential";

/// The identity that a token is issued to. It selects the token source.
///
/// # Examples
///
/// ```
/// use sidentity::policy::Principal;
///
/// assert_eq!(Principal::Attached.account(), None);
/// let other = Principal::Account("worker@p.iam.gserviceaccount.com".into());
/// assert_eq!(other.account(), Some("worker@p.iam.gserviceaccount.com"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// The identity of the base credential: the default service account of the instance, or that of the credential
    /// file.
    #[default]
    Attached,
    /// Another service account of the instance, by its e-mail address.
    Account(Arc<str>),
    /// A user for whom a service account acts: domain-wide delegation.
    Delegated(Arc<Delegated>),
    /// A service account that another identity impersonates.
    Impersonated(Arc<Impersonated>),
    /// The identity with which a credential file impersonates its account. It has no tokens of rules or routes.
    Source,
}

/// A user of a Google Workspace domain, and the service account that acts for the user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delegated {
    /// The service account that signs the assertion. Never [`Principal::Delegated`].
    pub(crate) issuer: Principal,
    /// The user's e-mail address.
    pub(crate) subject: Arc<str>,
}

/// A service account, and the identities that impersonate it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Impersonated {
    /// The identity whose token authorizes the calls: [`Principal::Attached`] or [`Principal::Account`].
    pub(crate) base: Principal,
    /// The delegates and the target.
    pub(crate) chain: Impersonation,
}

// === impl Principal ===

impl Principal {
    /// Returns the e-mail address of the account or of the delegated user, or `None` for the base credential's own.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Attached | Self::Source => None,
            Self::Account(email) => Some(email),
            Self::Delegated(delegated) => Some(&delegated.subject),
            Self::Impersonated(impersonated) => Some(impersonated.chain.target()),
        }
    }

    /// Returns a clause for messages that names the identity that obtains the token for the account: `impersonated by
    /// the base credential through a@b.c`. `None` if the account obtains it itself.
    pub(crate) fn chain_clause(&self) -> Option<String> {
        self.chain_clause_with(BASE_CREDENTIAL)
    }

    /// Like [`chain_clause`](Self::chain_clause), with the name of the base credential's holder.
    pub(crate) fn chain_clause_with(&self, holder: &str) -> Option<String> {
        match self {
            Self::Attached | Self::Account(_) | Self::Source => None,
            Self::Delegated(delegated) => Some(format!(
                "on whose behalf {} acts",
                delegated.issuer.name_of(holder)
            )),
            Self::Impersonated(impersonated) => {
                let Impersonated { base, chain } = &**impersonated;
                let own = base.account().unwrap_or(holder);
                let delegates = without_own(chain.delegates(), Some(own));
                let delegates: Vec<&str> = delegates.map(|account| &**account).collect();
                let through = match &*delegates {
                    [] => String::new(),
                    delegates => format!(" through {}", delegates.join(", then ")),
                };
                let base = base.name_of(holder);
                Some(format!("impersonated by {base}{through}"))
            }
        }
    }

    /// Names the principal, with the name of the base credential's holder.
    pub(crate) fn name_of(&self, holder: &str) -> String {
        match (self.account(), self.chain_clause_with(holder)) {
            (None, _) if *self == Self::Source => "the source credential of the file".to_owned(),
            (None, _) => holder.to_owned(),
            (Some(account), None) => format!("the account {account}"),
            (Some(account), Some(via)) => format!("{account}, {via}"),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name_of(BASE_CREDENTIAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impersonated(base: Principal, chain: &str) -> Principal {
        let chain = Impersonation::parse(chain).unwrap();
        Principal::Impersonated(Arc::new(Impersonated { base, chain }))
    }

    #[test]
    fn a_principal_names_its_whole_chain() {
        let target = impersonated(Principal::Attached, "a@b.c,d@e.f,t@p.example");
        assert_eq!(target.account(), Some("t@p.example"));
        assert_eq!(
            target.to_string(),
            "t@p.example, impersonated by the base credential through a@b.c, then d@e.f"
        );
        let user = Principal::Delegated(Arc::new(Delegated {
            issuer: impersonated(Principal::Account("x@p.example".into()), "t@p.example"),
            subject: "jane@example.com".into(),
        }));
        assert_eq!(user.account(), Some("jane@example.com"));
        assert_eq!(
            user.to_string(),
            "jane@example.com, on whose behalf t@p.example, impersonated by the account x@p.example acts"
        );
    }

    #[test]
    fn another_chain_is_another_principal() {
        let all = [
            Principal::Attached,
            impersonated(Principal::Attached, "t@p.example"),
            impersonated(Principal::Attached, "a@b.c,t@p.example"),
            impersonated(Principal::Attached, "d@e.f,a@b.c,t@p.example"),
            impersonated(Principal::Attached, "a@b.c,d@e.f,t@p.example"),
            impersonated(Principal::Account("x@p.example".into()), "t@p.example"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| one != other));
        }
    }
}
