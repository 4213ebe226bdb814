//! Whose token a destination gets.

use std::fmt;
use std::sync::Arc;

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
    /// The default service account of the instance.
    #[default]
    Attached,
    /// Another service account of the instance, by its e-mail address.
    Account(Arc<str>),
}

// === impl Principal ===

impl Principal {
    /// Returns the e-mail address of the account, or `None` for the default account.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Attached => None,
            Self::Account(email) => Some(email),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached => f.write_str("the attached account"),
            Self::Account(email) => write!(f, "the account {email}"),
        }
    }
}
