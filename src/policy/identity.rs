//! Resolves the identity of a token from the options of a route, the options of its rule, and
//! `--impersonate-service-account`.

use std::sync::Arc;

use super::impersonation::Impersonation;
use super::principal::{Delegated, Impersonated, Principal};
use super::rule::RuleOptions;

/// The options that name an identity, and the principal that they resolve to.
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityOptions {
    account: Option<Arc<str>>,
    chain: Option<Impersonation>,
    subject: Option<Arc<str>>,
    /// `--impersonate-service-account`.
    global: Option<Impersonation>,
    /// Stored, so that a decision costs only a reference count.
    principal: Principal,
}

// === impl IdentityOptions ===

impl IdentityOptions {
    pub(super) fn new(options: &RuleOptions, global: Option<&Impersonation>) -> Self {
        Self {
            account: options.account.as_deref().map(Arc::from),
            chain: options.impersonation(),
            subject: options.subject.as_deref().map(Arc::from),
            global: global.cloned(),
            principal: Principal::Attached,
        }
        .resolved()
    }

    /// Fills the options that are not set from `below`.
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            account: self.account.or_else(|| below.account.clone()),
            chain: self.chain.or_else(|| below.chain.clone()),
            subject: self.subject.or_else(|| below.subject.clone()),
            ..self
        }
        .resolved()
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    fn resolved(self) -> Self {
        let base = match &self.account {
            // `default` is the attached account.
            Some(account) if **account != *"default" => Principal::Account(Arc::clone(account)),
            _ => Principal::Attached,
        };
        let issuer = match self.chain.as_ref().or(self.global.as_ref()) {
            Some(chain) => {
                let chain = chain.clone();
                Principal::Impersonated(Arc::new(Impersonated { base, chain }))
            }
            None => base,
        };
        let principal = match &self.subject {
            Some(subject) => Principal::Delegated(Arc::new(Delegated {
                issuer,
                subject: Arc::clone(subject),
            })),
            None => issuer,
        };
        Self { principal, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(all: &[(&str, &str)]) -> RuleOptions {
        let mut options = RuleOptions::default();
        for (name, value) in all {
            options.set(name, value).unwrap();
        }
        options
    }

    fn principal(all: &[(&str, &str)], global: Option<&str>) -> String {
        let global = global.map(|text| Impersonation::parse(text).unwrap());
        let identity = IdentityOptions::new(&options(all), global.as_ref());
        identity.principal().to_string()
    }

    #[test]
    fn an_option_of_a_rule_overrides_the_global_one() {
        let global = Some("g@p.example");
        assert_eq!(principal(&[], None), "the base credential");
        assert_eq!(
            principal(&[], global),
            "g@p.example, impersonated by the base credential"
        );
        assert_eq!(
            principal(
                &[("delegate", "a@p.example"), ("impersonate", "t@p.example")],
                global
            ),
            "t@p.example, impersonated by the base credential through a@p.example"
        );
    }

    #[test]
    fn the_metadata_server_account_is_the_base_of_the_chain() {
        let account = [("account", "x@p.example")];
        assert_eq!(principal(&account, None), "the account x@p.example");
        assert_eq!(
            principal(&account, Some("g@p.example")),
            "g@p.example, impersonated by the account x@p.example"
        );
        assert_eq!(
            principal(&[("account", "default")], None),
            "the base credential"
        );
    }

    #[test]
    fn a_subject_is_delegated_by_the_account_of_the_other_options() {
        assert_eq!(
            principal(
                &[("subject", "u@d.example"), ("scope", "s")],
                Some("g@p.example")
            ),
            "u@d.example, on whose behalf g@p.example, impersonated by the base credential acts"
        );
    }

    #[test]
    fn a_route_keeps_its_own_chain_and_takes_other_options_from_the_rule() {
        let below = IdentityOptions::new(
            &options(&[
                ("delegate", "a@p.example"),
                ("impersonate", "t@p.example"),
                ("account", "x@p.example"),
            ]),
            None,
        );
        let own = IdentityOptions::new(&options(&[("impersonate", "r@p.example")]), None);
        assert_eq!(
            own.over(&below).principal().to_string(),
            "r@p.example, impersonated by the account x@p.example"
        );
        let defaults = IdentityOptions::default();
        assert_eq!(
            defaults.over(&below).principal().to_string(),
            "t@p.example, impersonated by the account x@p.example through a@p.example"
        );
    }
}
