//! The facts about the project, the instance and the account.

use crate::policy::Principal;

/// A fact that a source may know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// The e-mail address of a principal.
    Email(&'a Principal),
    ProjectId,
    ProjectNumber,
    Region,
    /// The scopes that a machine gives to the access tokens of its account.
    Scopes(&'a Principal),
    Universe,
}
