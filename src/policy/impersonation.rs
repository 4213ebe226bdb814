//! Chains of service account impersonation: the option `--impersonate-service-account`, and `impersonate=` of a rule.

use std::fmt;
use std::sync::Arc;

use super::rule_options::{is_account_email, quoted};

/// A chain of accounts from the base credential to the target. Each impersonates the next.
///
/// # Examples
///
/// ```
/// use sidentity::policy::Impersonation;
///
/// let chain = Impersonation::parse("a@p.iam.gserviceaccount.com,t@p.iam.gserviceaccount.com").unwrap();
/// assert_eq!(chain.target(), "t@p.iam.gserviceaccount.com");
/// assert_eq!(chain.delegates().len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Impersonation {
    delegates: Arc<[Arc<str>]>,
    target: Arc<str>,
}

/// Returns the delegates after those at the head that are the caller `own` itself. An account needs no role on itself,
/// and has its token already.
pub(crate) fn without_own<'a, T: AsRef<str>>(
    delegates: &'a [T],
    own: Option<&'a str>,
) -> impl Iterator<Item = &'a T> {
    let is_own = move |delegate: &&T| own == Some(T::as_ref(delegate));
    delegates.iter().skip_while(is_own)
}

// === impl Impersonation ===

impl Impersonation {
    /// Creates a chain from validated e-mail addresses.
    pub(super) fn new<'a>(delegates: impl IntoIterator<Item = &'a str>, target: &str) -> Self {
        Self {
            delegates: delegates.into_iter().map(Arc::from).collect(),
            target: target.into(),
        }
    }

    /// Reads `A,B,TARGET`: the last account is the target.
    ///
    /// # Errors
    ///
    /// An account is not a valid e-mail address. The error names it and the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write TARGET, or A,B,TARGET where A impersonates B and B impersonates TARGET, each an e-mail \
                            address such as my-account@my-project.iam.gserviceaccount.com";
        let mut accounts: Vec<&str> = text.split(',').map(str::trim).collect();
        if let Some(wrong) = accounts.iter().find(|account| !is_account_email(account)) {
            return Err(match *wrong {
                "" => format!("{} has an empty account: {FORM}", quoted(text)),
                wrong => format!(
                    "{} is not the e-mail address of a service account: {FORM}",
                    quoted(wrong)
                ),
            });
        }
        match accounts.pop() {
            Some(target) => Ok(Self::new(accounts, target)),
            None => Err(FORM.to_owned()),
        }
    }

    /// Returns the delegates, starting with the account that the base credential impersonates.
    pub fn delegates(&self) -> &[Arc<str>] {
        &self.delegates
    }

    /// Returns the shared list of delegates.
    pub(crate) fn shared_delegates(&self) -> &Arc<[Arc<str>]> {
        &self.delegates
    }

    /// Returns the account whose tokens are issued.
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// Writes the form that [`Impersonation::parse`] reads.
impl fmt::Display for Impersonation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for delegate in &*self.delegates {
            write!(f, "{delegate},")?;
        }
        f.write_str(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_account_of_a_chain_is_the_target() {
        for text in ["t@p.example", "a@p.example,b@p.example,t@p.example"] {
            let chain = Impersonation::parse(text).unwrap();
            assert_eq!(chain.target(), "t@p.example");
            assert_eq!(chain.to_string(), text);
        }
        let spaced = Impersonation::parse(" a@p.example , t@p.example ").unwrap();
        assert_eq!(spaced.to_string(), "a@p.example,t@p.example");
    }

    #[test]
    fn an_invalid_account_is_an_error_with_the_correct_form() {
        for (text, wrong) in [
            ("", "has an empty account"),
            ("a@p.example,", "\"a@p.example,\" has an empty account"),
            ("a@p.example,,t@p.example", "has an empty account"),
            ("default", "\"default\" is not the e-mail address"),
            ("a@p.example,me", "\"me\" is not the e-mail address"),
            ("a@p.example/../x", "is not the e-mail address"),
        ] {
            let error = Impersonation::parse(text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
            assert!(error.contains("A,B,TARGET"), "{error}");
        }
    }
}
